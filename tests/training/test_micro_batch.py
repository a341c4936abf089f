"""A batch that is computed in parts is still one batch: the same draws, the same gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from lora_trainer.config import Config
from lora_trainer.jobs.events import silent
from lora_trainer.training.batches import Batch
from lora_trainer.training.device import choose_precision
from lora_trainer.training.loop import train
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import Plan, make_plan
from lora_trainer.training.steps import Steps

ConfigOf = Callable[..., Config]
CPU = torch.device("cpu")


class Gradients:
    """A learner that learns nothing and keeps what it would have learned from."""

    def __init__(self, models: Models):
        self._parameters = models.network.parameters()
        self.found: list[Tensor] = []

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.found = [parameter.grad.clone() for parameter in self._parameters if parameter.grad is not None]
        for parameter in self._parameters:
            parameter.grad = None


def loaded(config: Config) -> tuple[Plan, Models]:
    plan = make_plan(config)
    models = load_models(plan, choose_precision("no", config.base_precision, CPU), CPU, silent)
    models.initialise_network()
    with torch.no_grad():
        for weight in models.network.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(9)), alpha=0.05)
    return plan, models


def step_of(plan: Plan, models: Models, micro_batch: int, step: int = 1) -> tuple[float, list[Tensor]]:
    learner = Gradients(models)
    config = replace(plan.config, micro_batch=micro_batch)
    steps = Steps(replace(plan, config=config), models, Accelerator(cpu=True))
    return steps.take(step, learner), learner.found  # type: ignore[arg-type]


@pytest.fixture
def five_pictures(pictures: Path) -> Path:
    """One more than a multiple of the parts, with a mask for each."""
    pixels = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(pictures / "4.png")
    masks = pictures.parent / "masks"
    masks.mkdir()
    for number in range(5):
        grey = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(grey).resize((64, 64)).save(masks / f"{number}.png")
    return pictures


@pytest.mark.parametrize(
    "options",
    [
        {"train": "both"},
        {"min_snr_gamma": 5.0, "loss": "huber", "noise_offset": 0.1, "flip": True, "tag_dropout": 0.5},
        {"dropout": 0.3, "gradient_checkpointing": "on"},
        {"kind": "LoCon", "conv_rank": 2, "dropout": 0.2, "rank_dropout": 0.3, "module_dropout": 0.3},
        {"max_token_length": 150, "dropout": 0.2, "rank_dropout": 0.3},
        {"kind": "LoHa", "rank_dropout": 0.3, "module_dropout": 0.3},
        {"base_precision": "fp8", "dropout": 0.1},
        {"masked": True},
    ],
    ids=["both", "noise", "dropout", "locon", "long captions", "loha", "fp8", "masked"],
)
def test_gradients_are_those_of_the_whole_batch(
    config_of: ConfigOf, five_pictures: Path, options: dict[str, Any]
) -> None:
    if options.pop("masked", False):
        options |= {"masked_loss": "folder", "mask_folder": str(five_pictures.parent / "masks")}
    plan, models = loaded(config_of(batch_size=5, **options))
    whole_loss, whole = step_of(plan, models, 0)
    assert any(gradient.abs().max() > 1e-5 for gradient in whole)
    for micro_batch in (1, 2):
        loss, found = step_of(plan, models, micro_batch)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        for left, right in zip(found, whole):
            torch.testing.assert_close(left, right, atol=2e-5 * float(right.abs().max()) + 1e-9, rtol=1e-4)


def test_xl_batches_are_cut_with_their_sizes(config_of: ConfigOf, five_pictures: Path, xl_base: Path) -> None:
    plan, models = loaded(config_of(base_model=str(xl_base), batch_size=5, train="unet"))
    _, whole = step_of(plan, models, 0)
    _, found = step_of(plan, models, 2)
    for left, right in zip(found, whole):
        torch.testing.assert_close(left, right, atol=2e-5 * float(right.abs().max()) + 1e-9, rtol=1e-4)


@pytest.mark.parametrize(("micro_batch", "sizes"), [(0, [5]), (2, [2, 2, 1]), (9, [5])])
def test_no_more_pictures_are_computed_at_once(
    config_of: ConfigOf, five_pictures: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int, sizes: list[int]
) -> None:
    seen: list[int] = []
    real = Models.denoise

    def counted(self: Models, noisy: Tensor, *others: Any) -> Tensor:
        seen.append(len(noisy))
        return real(self, noisy, *others)

    monkeypatch.setattr(Models, "denoise", counted)
    train(config_of(batch_size=5, epochs=1, micro_batch=micro_batch))
    assert seen == sizes


@given(st.integers(1, 9), st.integers(1, 12))
def test_parts_put_together_are_the_batch(samples: int, size: int) -> None:
    numbers = torch.arange(samples)
    images = numbers.view(-1, 1, 1, 1).float()
    captions = tuple(map(str, range(samples)))
    batch = Batch(images, images + 1, images + 2, numbers, captions, numbers[:, None] * 6.0, numbers.float(), None)
    parts = list(batch.parts(size))
    assert [first for first, _ in parts] == list(range(0, samples, size))
    assert all(len(part) <= size and part.mask is None for _, part in parts)
    assert sum((part.captions for _, part in parts), ()) == captions
    for name in ("latents", "noise", "perturbed", "timesteps", "sizes", "weights"):
        assert torch.equal(torch.cat([getattr(part, name) for _, part in parts]), getattr(batch, name))

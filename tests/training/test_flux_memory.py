"""Flux in little memory: blocks that wait in host memory, 8 and 4 bits, and the ladder that comes to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.stops import Stop, Wishes
from lora_trainer.training import device, ladder, offload
from lora_trainer.training.device import Precision, precision_of
from lora_trainer.training.held import HeldLinear, held
from lora_trainer.training.ladder import next_saving
from lora_trainer.training.loop import train
from lora_trainer.training.models import Models, checkpointing, load_models
from lora_trainer.training.plan import make_plan
from lora_trainer.training.swapping import Swap
from tests.flux_files import FluxFiles, make_flux
from tests.training.heard import Heard

ConfigOf = Callable[..., Config]
Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")


@pytest.fixture
def flux_config_of(config_of: ConfigOf, flux: FluxFiles) -> ConfigOf:
    def make(**changes: Any) -> Config:
        options = {"shuffle_tags": False, "t5_length": 256, "max_steps": 3, "gradient_checkpointing": "on"}
        return config_of(**{**flux.settings, **options, **changes})

    return make


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of blocks that were brought from host memory."""
    real, told = Swap._enter, []

    def enter(self: Swap, at: int, *given: Any) -> None:
        told.append(type(given[0]).__name__)
        real(self, at, *given)

    monkeypatch.setattr(Swap, "_enter", enter)
    return told


def trained(config: Config, control: Any = None) -> tuple[Tensors, list[float], Heard]:
    heard = Heard()
    outcome = train(config, heard, control)
    assert outcome.lora is not None
    return load_file(outcome.lora), [facts["loss"] for facts in heard.of("progress")], heard


def loaded(config: Config) -> Models:
    plan = make_plan(config)
    models = load_models(plan, precision_of(plan, CPU), CPU, silent)
    models.initialise_network()
    return models


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# ---- blocks that wait


@pytest.mark.parametrize("changes", [{}, {"kind": "DoRA"}, {"dropout": 0.1, "train": "both"}])
def test_blocks_that_wait_change_nothing(flux_config_of: ConfigOf, entered: list[str], changes: Any) -> None:
    changes = {"preview_every_epochs": 1, "preview_steps": 2, "preview_size": (64, 64), **changes}
    whole, losses, _ = trained(flux_config_of(output_name="whole", **changes))
    assert not entered
    found, told, _ = trained(flux_config_of(swap_blocks=2, gradient_checkpointing="auto", **changes))
    assert {*entered} == {"T5Block", "DoubleBlock", "SingleBlock"}
    assert same(found, whole) and told == losses


def test_t5_comes_block_by_block_where_captions_change(flux_config_of: ConfigOf, entered: list[str]) -> None:
    changes = {"shuffle_tags": True, "caption_dropout": 0.3}
    whole, _, _ = trained(flux_config_of(output_name="whole", **changes))
    assert same(trained(flux_config_of(swap_blocks=1, **changes))[0], whole)
    assert entered.count("T5Block") >= 2 * 3 and "DoubleBlock" not in entered


def test_a_pause_takes_the_copies_along(flux_config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor, those that wait and those that are there, comes back elsewhere."""
    whole, _, _ = trained(flux_config_of(output_name="whole", swap_blocks=2))

    class Pausing(Stop):
        asked = 0

        def wishes(self) -> Wishes:
            self.asked += 1
            return Wishes(paused=self.asked == 2)

        def wait(self) -> None:
            pass

    monkeypatch.setattr(offload, "copied", lambda content, device: content.clone())
    found, _, heard = trained(flux_config_of(swap_blocks=2), Pausing())
    assert heard.of("paused") and heard.of("resumed") and same(found, whole)


def test_only_flux_has_blocks_that_wait(config_of: ConfigOf, flux_config_of: ConfigOf, entered: list[str]) -> None:
    trained(config_of(swap_blocks=2, max_steps=1))
    assert not entered
    with pytest.raises(BadInput, match="does not go with blocks that wait in host memory"):
        loaded(flux_config_of(swap_blocks=2, compile=True))
    assert checkpointing(make_plan(flux_config_of(swap_blocks=2, gradient_checkpointing="auto")).config, CPU)


# ---- 8 and 4 bits


@pytest.mark.parametrize(("kind", "near"), [("fp8", 0.05), ("nf4", 0.25)])
def test_a_run_on_rounded_weights_learns_nearly_the_same(
    flux_config_of: ConfigOf, tmp_path: Path, kind: str, near: float
) -> None:
    exact = trained(flux_config_of(output_name="exact"))[1]
    _, losses, _ = trained(flux_config_of(base_precision=kind))
    assert losses != exact and losses == pytest.approx(exact, rel=near)
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        assert file.metadata()["ss_fp8_base"] == str(kind == "fp8")


@pytest.mark.parametrize("kind", ["fp8", "nf4"])
@pytest.mark.parametrize("swap", [0, 2])
def test_a_files_own_numbers_stay(flux_config_of: ConfigOf, tmp_path: Path, kind: str, swap: int) -> None:
    files = make_flux(tmp_path / kind, dtype=kind, seed=3)
    models = loaded(flux_config_of(**files.settings, swap_blocks=swap))
    layers = {name: layer for name, layer in models.unet.named_modules() if isinstance(layer, HeldLinear)}
    assert len(layers) == 10 + 2 * 3
    of_file = load_file(files.transformer)
    for name, layer in layers.items():
        lying, stored = held(layer), of_file[f"{name.replace('.base', '')}.weight"]
        assert lying.kind == kind
        assert torch.equal(lying.tensors[0].flatten().view(torch.uint8), stored.flatten().view(torch.uint8))


@pytest.mark.parametrize(("own", "wanted", "kind"), [("nf4", "fp8", "fp8"), ("fp8", "fp32", ""), ("bf16", "auto", "")])
def test_what_is_asked_for_goes_before_what_the_file_has(
    flux_config_of: ConfigOf, tmp_path: Path, own: str, wanted: str, kind: str
) -> None:
    files = make_flux(tmp_path / own, dtype=own, seed=3)
    models = loaded(flux_config_of(**files.settings, base_precision=wanted))
    kinds = {held(layer).kind for layer in models.unet.modules() if isinstance(layer, HeldLinear)}
    assert kinds == {kind}


# ---- the ladder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says of every device that it has so many GiB of its own."""

    def has(gib: int) -> None:
        monkeypatch.setattr(ladder, "memory_of", lambda device: gib * 2**30)

    return has


def swaps(config: Config, device: torch.device = CPU, **base: Any) -> list[int]:
    plan = make_plan(replace(config, savings=("swap",)))
    plan, found = replace(plan, base=replace(plan.base, **base)), []
    while saving := next_saving(plan, device, loading=True):
        plan = replace(plan, config=replace(plan.config, **{saving.setting: saving.after}))
        assert f"{saving.after} of the base model's blocks wait" in saving.sentence
        found.append(saving.after)
    return found


def test_as_many_blocks_wait_as_the_weights_ask_for(
    flux_config_of: ConfigOf, config_of: ConfigOf, gpu: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    full: dict[str, Any] = {"parameters": 11_900_000_000}
    monkeypatch.setattr(
        ladder,
        "precision_of",
        lambda plan, device: Precision("bf16", torch.bfloat16, torch.bfloat16, False, plan.base.precision or None),
    )
    for gib, precision, expected in (
        (80, "", [7, 14, 21, 28, 35]),
        (24, "", [7, 14, 21, 28, 35]),
        (16, "", [21, 28, 35]),
        (12, "", [28, 35]),
        (8, "", [35]),
        (12, "fp8", [14, 21, 28, 35]),
        (8, "nf4", [21, 28, 35]),
    ):
        gpu(gib)
        assert swaps(flux_config_of(), **full, precision=precision) == expected, gib
    gpu(12)
    assert swaps(config_of()) == [] == swaps(flux_config_of(compile=True))
    assert swaps(flux_config_of(gradient_checkpointing="off")) == []


def test_a_device_without_memory_of_its_own_swaps_nothing(flux_config_of: ConfigOf) -> None:
    assert swaps(flux_config_of()) == [] == swaps(flux_config_of(), torch.device("mps"))


def test_what_can_be_foreseen_is_saved_before_anything_is_loaded(
    flux_config_of: ConfigOf, gpu: Callable[[int], None]
) -> None:
    whole, _, _ = trained(flux_config_of(output_name="whole"))
    gpu(4)
    found, _, heard = trained(flux_config_of())
    assert [each["to"] for each in heard.of("adjusted")] == [7] and same(found, whole)
    kinds = [kind for kind, _ in heard.events]
    assert kinds.index("adjusted") < kinds.index("phase")
    _, _, heard = trained(flux_config_of(output_name="kept", savings=()))
    assert not heard.of("adjusted")


def test_a_base_that_is_rounded_is_rounded_no_further(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    files = make_flux(tmp_path / "nf4", dtype="nf4")
    plan = make_plan(flux_config_of(**files.settings, savings=("fp8",)))
    assert next_saving(plan, CPU) is None
    assert next_saving(make_plan(flux_config_of(savings=("fp8",))), CPU)


def test_a_run_that_runs_short_swaps_and_comes_out_the_same(
    flux_config_of: ConfigOf, gpu: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, entered: list[str]
) -> None:
    """In its second step memory runs short until two rungs are taken; T5, whose captions change, then comes, too."""
    options: dict[str, Any] = {"shuffle_tags": True, "savings": ("swap", "fp8")}
    whole, losses, _ = trained(flux_config_of(output_name="whole", **options))
    gpu(80)
    real, calls = Models.denoise, iter(range(100))

    def denoise(self: Models, *given: Any) -> torch.Tensor:
        if 1 <= next(calls) <= 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real(self, *given)

    monkeypatch.setattr(Models, "denoise", denoise)
    found, told, heard = trained(flux_config_of(**options))
    assert [each["to"] for each in heard.of("adjusted")] == [7, 14]
    assert {*entered} == {"T5Block", "DoubleBlock", "SingleBlock"}
    assert told == losses and same(found, whole)


def test_a_model_that_swaps_is_rounded_where_it_waits(
    flux_config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, entered: list[str]
) -> None:
    expected, losses, _ = trained(flux_config_of(output_name="fp8", base_precision="fp8"))
    real, calls = Models.denoise, iter(range(100))

    def denoise(self: Models, *given: Any) -> torch.Tensor:
        if next(calls) == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real(self, *given)

    monkeypatch.setattr(Models, "denoise", denoise)
    found, told, heard = trained(flux_config_of(swap_blocks=2, savings=("fp8",)))
    assert [each["setting"] for each in heard.of("adjusted")] == ["base_precision"]
    assert entered and told == losses and same(found, expected)


def test_memory_is_asked_of_gpus_only() -> None:
    assert [device.memory_of(torch.device(kind)) for kind in ("cpu", "mps")] == [0, 0]

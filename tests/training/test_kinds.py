"""Runs of the whole loop with each kind of network that LyCORIS makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.stops import Stop
from lora_trainer.training.batches import make_batch
from lora_trainer.training.device import choose_precision
from lora_trainer.training.loop import train
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import make_plan

ConfigOf = Callable[..., Config]
Tensors = dict[str, torch.Tensor]
KINDS = pytest.mark.parametrize("kind", ["LoHa", "LoKr", "DoRA"])
CPU = torch.device("cpu")


def trained(config: Config) -> Tensors:
    outcome = train(config)
    assert outcome.lora is not None
    return load_file(outcome.lora)


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def error_on_the_first_batch(config: Config, models: Models) -> float:
    """Of the noise predicted at one fixed draw, with the network as it is."""
    plan = make_plan(config)
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    noisy = batch.latents + batch.noise
    with torch.no_grad():
        found = models.denoise(noisy, batch.timesteps, models.texts(batch.captions), batch.sizes)
    return (found - batch.noise).square().mean().item()


@KINDS
def test_learns_and_is_loaded_again(config_of: ConfigOf, kind: str, tmp_path: Path) -> None:
    """With convolutions, checkpointing, gathered gradients and every dropout that the kind has."""
    config = config_of(
        kind=kind,
        conv_rank=2,
        batch_size=1,
        gradient_accumulation=2,
        gradient_checkpointing="on",
        rank_dropout=0.1,
        module_dropout=0.1,
        learning_rate=1e-2,
    )
    tensors = trained(config)
    models = load_models(make_plan(config), choose_precision("no", "auto", CPU), CPU, silent)
    models.initialise_network()
    begun = models.network.state_dict()
    weights = [key for key in tensors if not key.endswith(".alpha")]
    assert not any(torch.equal(tensors[key], begun[key]) for key in weights)
    before = error_on_the_first_batch(config, models)
    assert models.network.load_state_dict(tensors) == ()
    after = error_on_the_first_batch(config, models)
    assert after < 0.98 * before, (after, before)
    models.network.set_multiplier(0)
    assert error_on_the_first_batch(config, models) == pytest.approx(before, rel=1e-5)


@KINDS
def test_a_stopped_run_ends_with_the_same_bits(config_of: ConfigOf, kind: str) -> None:
    options: dict[str, Any] = {
        "kind": kind,
        "train": "unet",
        "epochs": 2,
        "rank_dropout": 0.1,
        "scale_weight_norms": 0.05,
    }
    whole = trained(config_of(output_name="whole", **options))
    stop = Stop()

    def stop_in_the_middle(event: str, /, **facts: Any) -> None:
        if event == "progress" and facts["step"] == 3:
            stop.ask()

    assert train(config_of(**options), stop_in_the_middle, stop).lora is None
    assert same(whole, trained(config_of(**options)))


@KINDS
def test_starts_from_a_lora_of_its_kind(config_of: ConfigOf, kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"kind": kind, "train": "unet", "epochs": 1}
    first = trained(config_of(output_name="a", **options))
    start = str(tmp_path / "out" / "a.safetensors")
    again = trained(config_of(output_name="b", start_lora=start, learning_rate=1e-12, **options))
    for key in first:
        torch.testing.assert_close(first[key], again[key], atol=1e-9, rtol=0)
    with pytest.raises(BadInput, match="which does not fit a LoRA of rank 4"):
        train(config_of(output_name="c", start_lora=start, train="unet"))


@KINDS
def test_bf16_trains_close_to_float32(config_of: ConfigOf, kind: str) -> None:
    losses: dict[str, list[float]] = {"no": [], "bf16": []}
    for precision, found in losses.items():

        def listen(event: str, /, found: list[float] = found, **facts: Any) -> None:
            if event == "progress":
                found.append(facts["loss"])

        train(config_of(output_name=precision, kind=kind, epochs=1, mixed_precision=precision), listen)
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.02)


@KINDS
def test_blocks_have_their_own_ranks(config_of: ConfigOf, kind: str) -> None:
    ranks = [0] * 25
    ranks[1], ranks[12] = 2, 6
    tensors = trained(config_of(kind=kind, train="unet", epochs=1, block_wise=True, block_ranks=tuple(ranks)))
    assert {key.rpartition("_attentions")[0] for key in tensors} == {"lora_unet_down_blocks_0", "lora_unet_mid_block"}


MODULES = {
    "LoHa": {"algo": "loha", "preset": "attn-mlp", "module_dropout": 0.2},
    "LoKr": {"algo": "lokr", "preset": "attn-mlp", "module_dropout": 0.2, "factor": 4},
    "DoRA": {"algo": "locon", "dora_wd": "True", "wd_on_output": "False", "preset": "attn-mlp", "module_dropout": 0.2},
}


@KINDS
def test_metadata_is_what_sd_scripts_writes_for_lycoris(config_of: ConfigOf, kind: str, tmp_path: Path) -> None:
    trained(config_of(kind=kind, train="unet", max_steps=1, module_dropout=0.2, lokr_factor=4))
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_module"] == "lycoris.kohya"
    assert json.loads(metadata["ss_network_args"]) == MODULES[kind]


def test_what_lycoris_does_not_have_is_refused_together(config_of: ConfigOf) -> None:
    with pytest.raises(BadInput) as found:
        train(config_of(kind="LoKr", dropout=0.1, lokr_factor=0))
    assert {problem.setting for problem in found.value.problems} == {"dropout", "lokr_factor"}

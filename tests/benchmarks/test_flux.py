"""The parity benchmark for Flux: its cases are configs that train, and sd-scripts is given our parts and our draws."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import flux, parity_run
from benchmarks.flux_base import BASES, flux_base
from benchmarks.flux_cases import CASES
from benchmarks.parity_cases import explanation
from benchmarks.peer_flux import Drawing
from benchmarks.sample_pictures import make_pictures
from lora_trainer.config import problems, with_values
from lora_trainer.inspecting import identify
from lora_trainer.training.batches import make_batch
from lora_trainer.training.latents import Encoded
from lora_trainer.training.plan import Plan, make_plan

ARGUMENTS = argparse.Namespace(resolution=128, steps=10)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux_base("dev", tmp_path_factory.mktemp("bases"))


def planned(name: str, base: Path, folder: Path) -> Plan:
    case = CASES[name]
    return make_plan(parity_run.config_of(case, base, make_pictures(folder, case.pictures), ARGUMENTS, folder / "out"))


@pytest.mark.parametrize("name", BASES)
def test_sd_scripts_is_told_the_sizes_of_a_base(name: str) -> None:
    sizes, told = BASES[name].sizes, BASES[name].peer_sizes()
    assert told["transformer"]["hidden_size"] == 128 * told["transformer"]["num_heads"] == sizes.hidden
    assert told["transformer"]["mlp_ratio"] == 4
    assert told["t5xxl"]["d_model"] == told["transformer"]["context_in_dim"] == sizes.context
    assert told["clip_l"]["hidden_size"] == told["transformer"]["vec_in_dim"] == sizes.pooled


def test_the_real_widths_are_those_of_flux() -> None:
    told = BASES["real"].peer_sizes()["transformer"]
    assert told == {
        "hidden_size": 3072, "num_heads": 24, "mlp_ratio": 4.0, "context_in_dim": 4096, "vec_in_dim": 768,
    }  # fmt: skip
    assert (BASES["real"].sizes.double, BASES["real"].sizes.single) == (1, 2)


def test_a_base_is_made_once(base: Path) -> None:
    written = base.stat().st_mtime_ns
    assert flux_base("dev", base.parents[1]) == base
    assert base.stat().st_mtime_ns == written
    assert (identify(base).family, identify(base).variant) == ("flux", "dev")


@pytest.mark.parametrize("name", CASES)
def test_every_case_can_be_trained(name: str, base: Path, tmp_path: Path) -> None:
    config = parity_run.config_of(CASES[name], base, tmp_path, ARGUMENTS, tmp_path)
    assert problems(config.for_family("flux")) == ()


def test_the_peer_gets_our_parts_and_settings(base: Path, tmp_path: Path) -> None:
    plan = planned("clip-l-mask", base, tmp_path)
    script, given = parity_run.peer_arguments(plan, tmp_path)
    assert script == "flux_train_network"
    training = Path(given[given.index("--config_file") + 1]).read_text(encoding="utf-8").splitlines()
    for part in ("clip_l", "t5xxl", "ae"):
        assert f'{part} = "{base.with_name(part)}.safetensors"' in training
    for said in ("apply_t5_attn_mask = true", 'model_prediction_type = "raw"', "guidance_scale = 1.0"):
        assert said in training
    assert "network_train_unet_only = true" not in training
    assert plan.base.parts["t5_tokenizer"] == base.with_name("tokenizer.json")


@pytest.mark.parametrize(("sampling", "drawn"), [("uniform", "rand"), ("sigmoid", "randn")])
def test_sd_scripts_draws_what_ours_draws(sampling: str, drawn: str, base: Path, tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, "fitting")
    case = CASES["input-perturbation"]
    config = parity_run.config_of(case, base, pictures, ARGUMENTS, tmp_path / "out")
    plan = make_plan(with_values(config, [f"timestep_sampling={sampling}", "batch_size=2"]))
    latents = torch.zeros(16, 16, 16)
    batch = make_batch(plan, lambda *_: Encoded(latents, None), 1, 2, (0, 1))

    run: Any = SimpleNamespace(place=(1, 2), seed=plan.seed)
    drawing = Drawing(run)
    both = torch.stack([latents, latents])
    noise, levels = drawing.randn_like(both), getattr(drawing, drawn)((2,), device="cpu")
    extra = drawing.randn_like(both)
    assert torch.equal(noise, batch.noise)
    assert torch.equal(noise + 0.1 * extra, batch.perturbed)
    levels = levels if sampling == "uniform" else levels.sigmoid()
    torch.testing.assert_close(batch.timesteps, 1000 * levels)
    run.place = (1, 3)
    assert not torch.equal(drawing.randn_like(both), noise)
    assert drawing.float32 is torch.float32


def test_what_sd_scripts_leaves_unread_is_explained(base: Path, tmp_path: Path) -> None:
    config = parity_run.config_of(CASES["dev"], base, make_pictures(tmp_path, "fitting"), ARGUMENTS, tmp_path / "out")
    assert explanation(make_plan(config)) == ""
    assert "range of timesteps" in explanation(make_plan(with_values(config, ["min_timestep=100"])))


def test_the_result_is_the_worst_case_that_should_be_equal() -> None:
    good = {"loss_rel": 1e-7, "weights_rel": 3e-6, "exception": ""}
    bad = {"loss_rel": 1e-2, "weights_rel": 1e-2, "exception": "on purpose"}
    results = {"a": good, "b": good | {"loss_rel": 2e-7}, "c": bad}
    assert flux.worst(results) == {"loss_rel": 2e-7, "weights_rel": 3e-6}
    failed = {"loss_rel": None, "weights_rel": None, "exception": "", "error": "no base"}
    assert flux.worst({"a": good, "b": failed}) == {"loss_rel": None, "weights_rel": None}
    assert flux.worst({}) == {"loss_rel": None, "weights_rel": None}


def test_a_lora_of_the_whole_model_is_counted() -> None:
    assert flux.full_depth() == {"full_depth_modules": 304, "full_depth_wrong": []}

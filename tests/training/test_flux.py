"""Trainings on a miniature Flux, from the config to the finished LoRA."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.stops import Stop
from lora_trainer.training.batches import captions_vary, make_batch
from lora_trainer.training.device import choose_precision
from lora_trainer.training.grid import draw_grid
from lora_trainer.training.loop import train
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import Plan, make_plan
from lora_trainer.training.run import weights_per_rank
from lora_trainer.training.steps import Steps
from tests.flux_files import FluxFiles, make_flux
from tests.training.heard import Heard

CPU = torch.device("cpu")
ConfigOf = Callable[..., Config]
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def flux_config_of(config_of: ConfigOf, flux: FluxFiles) -> ConfigOf:
    """The config on the miniature, with captions that stay as they are and are short."""

    def make(**changes: Any) -> Config:
        return config_of(**{**flux.settings, "shuffle_tags": False, "t5_length": 256, "max_steps": 3, **changes})

    return make


def trained(config: Config, **options: Any) -> tuple[Tensors, list[float], Heard]:
    heard = Heard()
    outcome = train(config, heard, **options)
    assert outcome.lora is not None
    return load_file(outcome.lora), [facts["loss"] for facts in heard.of("progress")], heard


def loaded(config: Config) -> tuple[Plan, Models]:
    plan = make_plan(config)
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    models.initialise_network()
    return plan, models


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def close(left: Tensors, right: Tensors) -> None:
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], atol=1e-5, rtol=1e-3, msg=key)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


# ---- steps


def test_first_loss_is_that_of_diffusers_scheduler_on_the_models_velocity(flux_config_of: ConfigOf) -> None:
    config = flux_config_of(
        max_steps=1, timestep_sampling="sigma", flow_shift=3.0, guidance=2.5, input_perturbation=0.1
    )
    _, losses, _ = trained(config)
    plan, models = loaded(config)
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    text = models.texts(batch.captions)
    levels = scheduler.timesteps[[int((scheduler.timesteps - each).abs().argmin()) for each in batch.timesteps]]
    torch.testing.assert_close(levels, batch.timesteps)
    noisy = scheduler.scale_noise(batch.latents, levels, batch.perturbed)
    with torch.no_grad():
        velocity = models.unet(noisy, levels, text.context, text.pooled, torch.full((2,), 2.5), None)
    expected = torch.nn.functional.mse_loss(velocity, batch.noise - batch.latents).item()
    assert losses[0] == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(batch.noise, batch.perturbed) and text.mask is None


def test_one_picture_is_learned(flux_config_of: ConfigOf, pictures: Path) -> None:
    for path in pictures.iterdir():
        if path.stem != "0":
            path.unlink()
    options = {"batch_size": 1, "rank": 64, "alpha": 64.0, "learning_rate": 5e-3, "min_timestep": 900}
    _, losses, _ = trained(flux_config_of(max_steps=60, **options))
    before, after = (sum(part) / 10 for part in (losses[:10], losses[-10:]))
    assert after < 0.75 * before


def test_gradient_checkpointing_changes_nothing(flux_config_of: ConfigOf) -> None:
    options = {"dropout": 0.2, "train": "both"}
    plain, _, _ = trained(flux_config_of(output_name="a", gradient_checkpointing="off", **options))
    checkpointed, _, _ = trained(flux_config_of(output_name="b", gradient_checkpointing="on", **options))
    close(plain, checkpointed)


@pytest.mark.parametrize("train_what", ["unet", "both"])
def test_a_stopped_run_goes_on_to_the_same_bits(flux_config_of: ConfigOf, train_what: str) -> None:
    options = {"train": train_what, "dropout": 0.1}
    whole, _, _ = trained(flux_config_of(output_name="whole", **options))
    part, stop = flux_config_of(output_name="part", **options), Stop()
    train(part, lambda kind, /, **_: stop.ask() if kind == "progress" else None, stop)
    resumed, losses, _ = trained(part)
    assert len(losses) == 2
    assert same(whole, resumed)


def test_pictures_that_are_computed_one_by_one_are_still_one_batch(flux_config_of: ConfigOf) -> None:
    whole, _, _ = trained(flux_config_of(output_name="a", timestep_sampling="flux_shift"))
    halves, _, _ = trained(flux_config_of(output_name="b", timestep_sampling="flux_shift", micro_batch=1))
    close(whole, halves)


def test_bf16_trains_close_to_float32(flux_config_of: ConfigOf) -> None:
    _, exact, _ = trained(flux_config_of(output_name="a", max_steps=2))
    _, rounded, _ = trained(flux_config_of(output_name="b", max_steps=2, mixed_precision="bf16"))
    assert rounded == pytest.approx(exact, rel=0.04)


@pytest.mark.parametrize("kind", ["LoHa", "LoKr", "DoRA"])
def test_other_kinds_train(flux_config_of: ConfigOf, kind: str) -> None:
    tensors, losses, _ = trained(flux_config_of(kind=kind, max_steps=2))
    assert any(key.startswith("lora_unet_double_blocks_0_img_attn_qkv.") for key in tensors)
    assert all(map(math.isfinite, losses))


def test_masks_huber_and_a_narrow_range_of_levels_act(flux_config_of: ConfigOf) -> None:
    _, plain, _ = trained(flux_config_of(output_name="a", max_steps=1))
    _, huber, _ = trained(flux_config_of(output_name="b", max_steps=1, loss="huber", huber_schedule="snr"))
    assert huber[0] != pytest.approx(plain[0], rel=1e-3)
    plan, models = loaded(flux_config_of(min_timestep=300, max_timestep=310))
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    assert batch.timesteps.dtype == torch.float32
    assert all(300 <= timestep <= 310 for timestep in batch.timesteps)


# ---- texts


def test_cached_and_live_captions_train_the_same(flux_config_of: ConfigOf) -> None:
    learned = {}
    for mask in (False, True):
        cached, _, _ = trained(flux_config_of(output_name=f"a{mask}", cache_text="memory", t5_mask=mask))
        learned[mask], _, _ = trained(flux_config_of(output_name=f"b{mask}", cache_text="off", t5_mask=mask))
        close(cached, learned[mask])
    key = "lora_unet_single_blocks_0_linear1.lora_up.weight"
    assert not torch.allclose(learned[True][key], learned[False][key], rtol=1e-3)


def test_clip_is_trained_beside_a_cached_t5(flux_config_of: ConfigOf) -> None:
    halved, _, _ = trained(flux_config_of(output_name="a", train="both"))
    live, _, _ = trained(flux_config_of(output_name="b", train="both", cache_text="off"))
    close(halved, live)
    ups = {key: tensor for key, tensor in halved.items() if key.endswith("lora_up.weight")}
    clip = [key for key in ups if key.startswith("lora_te1_text_model_encoder_layers_")]
    assert len(clip) == 12 and len(ups) == 12 + 16
    assert all(tensor.abs().max() > 0 for tensor in ups.values())
    _, models = loaded(flux_config_of(train="both"))
    assert models.texts.halved and len(models.texts.encoders.encoders) == 1


def test_tags_stay_in_their_order_unless_that_is_asked_for(flux_config_of: ConfigOf, base: Path) -> None:
    for changes, shuffled in (({}, False), ({"shuffle_tags": True}, True), ({"base_model": str(base)}, True)):
        plan = make_plan(flux_config_of(**{"shuffle_tags": None, "t5_length": None, **changes}))
        assert captions_vary(plan) == shuffled


def test_captions_that_change_are_read_as_they_are_shown(flux_config_of: ConfigOf) -> None:
    plan, models = loaded(flux_config_of(shuffle_tags=True, train="both"))
    assert not models.texts.complete and not models.texts.halved
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    told = models.texts(batch.captions)
    other = models.texts([caption + ", night" for caption in batch.captions])
    assert told.pooled is not None and other.pooled is not None
    assert told.pooled.requires_grad and not told.context.requires_grad
    assert not torch.equal(told.context, other.context) and not torch.equal(told.pooled, other.pooled)


@pytest.mark.parametrize("train_what", ["unet", "both"])
def test_texts_that_come_to_be_cached_say_the_same(flux_config_of: ConfigOf, train_what: str) -> None:
    plan, models = loaded(flux_config_of(train=train_what, cache_text="off", t5_mask=True))
    captions = [picture.caption for picture in plan.pictures]
    live = models.texts(captions)
    models.texts.lighten(replace(plan, config=replace(plan.config, cache_text="memory")))
    assert models.texts.complete == (train_what == "unet") and models.texts.halved == (train_what == "both")
    for name, tensor in vars(models.texts(captions)).items():
        torch.testing.assert_close(tensor, vars(live)[name], atol=1e-5, rtol=1e-4)


def test_clip_alone_is_trained(flux_config_of: ConfigOf) -> None:
    tensors, _, _ = trained(flux_config_of(train="text_encoder", max_steps=2))
    assert {key.partition("_text_model")[0] for key in tensors} == {"lora_te1"}


def test_texts_on_disk_are_read_again(flux_config_of: ConfigOf, pictures: Path, tmp_path: Path) -> None:
    in_memory, _, _ = trained(flux_config_of(output_name="a", t5_mask=True))
    for name in ("b", "c"):
        on_disk, _, _ = trained(flux_config_of(output_name=name, t5_mask=True, cache_text="disk"))
        assert same(in_memory, on_disk)
    files = sorted((pictures / ".lora_trainer" / "texts").iterdir())
    assert len(files) == 4  # the preview's prompt is a caption
    content = load_file(files[0])
    assert content["context"].shape == (1, 256, 64) and content["mask"].dtype == torch.bool
    another = str(make_flux(tmp_path, seed=9).t5xxl)
    others: list[dict[str, Any]] = [{"t5_length": 512}, {"train": "both"}, {"t5_mask": True, "t5xxl": another}]
    for number, other in enumerate(others, 2):
        trained(flux_config_of(output_name=f"d{number}", cache_text="disk", max_steps=1, **other))
        assert len(list((pictures / ".lora_trainer" / "texts").iterdir())) == 4 * number


def test_t5_reads_as_many_tokens_as_the_variant_was_trained_with(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    schnell = make_flux(tmp_path / "schnell", "schnell")
    lengths = [make_plan(flux_config_of(t5_length=length)).config.t5_length for length in (None, 256, 512)]
    assert lengths == [512, 256, 512]
    plan, models = loaded(flux_config_of(**schnell.settings, t5_length=None))
    assert plan.config.t5_length == 256
    assert models.texts([plan.pictures[0].caption]).context.shape == (1, 256, 64)


# ---- what is trained


def test_blocks_that_are_chosen_are_trained(flux_config_of: ConfigOf) -> None:
    tensors, _, _ = trained(flux_config_of(max_steps=1, double_blocks="none", single_blocks="1"))
    assert {key.partition(".")[0] for key in tensors} == {
        f"lora_unet_single_blocks_1_{layer}" for layer in ("linear1", "linear2", "modulation_lin")
    }
    metadata = metadata_of(Path(flux_config_of().output_folder) / "blob.safetensors")
    arguments = json.loads(metadata["ss_network_args"])
    assert arguments["train_double_block_indices"] == "none" and arguments["train_single_block_indices"] == "1"


def test_blocks_that_the_base_does_not_have_are_told_with_all_else(flux_config_of: ConfigOf) -> None:
    with pytest.raises(BadInput, match="names block 2, and the last one is 1") as caught:
        make_plan(flux_config_of(single_blocks="2", double_blocks="99", batch_size=0))
    assert sorted(problem.setting for problem in caught.value.problems) == [
        "batch_size",
        "double_blocks",
        "single_blocks",
    ]


def test_blocks_have_their_own_ranks_and_rates(flux_config_of: ConfigOf) -> None:
    ranks, weights = [0] * 57, [1.0] * 57
    ranks[0], ranks[19], ranks[20] = 2, 3, 5
    weights[20] = 0.0
    block_lists = {"block_ranks": tuple(ranks), "block_lr_weights": tuple(weights)}
    tensors, _, _ = trained(flux_config_of(max_steps=1, block_wise=True, **block_lists))
    found = {key: len(tensor) for key, tensor in tensors.items() if key.endswith("lora_down.weight")}
    assert {key.partition("_blocks_")[2][0] + key[10:16]: rank for key, rank in found.items()} == {
        "0double": 2,
        "0single": 3,
    }


def test_starts_from_a_lora_of_flux(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    first, _, _ = trained(flux_config_of(output_name="a", train="both"))
    again, _, heard = trained(
        flux_config_of(
            output_name="b",
            train="both",
            learning_rate=1e-12,
            max_steps=1,
            start_lora=str(tmp_path / "out" / "a.safetensors"),
        )  # fmt: skip
    )
    for key in first:
        torch.testing.assert_close(first[key], again[key], atol=1e-9, rtol=0)
    assert not [facts for facts in heard.of("warning") if "a.safetensors" in facts["message"]]


@pytest.mark.parametrize("dtype", ["fp32", "nf4"])
def test_the_space_for_a_lora_is_that_of_all_its_layers(flux_config_of: ConfigOf, tmp_path: Path, dtype: str) -> None:
    files = make_flux(tmp_path / dtype, dtype=dtype)
    config = flux_config_of(train="both", max_steps=1)
    tensors, _, _ = trained(config)
    numbers = sum(tensor.numel() for key, tensor in tensors.items() if "lora_" in key.partition(".")[2])
    assert weights_per_rank(make_plan(flux_config_of(**files.settings))) * config.rank == numbers


def test_what_only_other_families_use_neither_acts_nor_is_recorded(flux_config_of: ConfigOf) -> None:
    plain, _, _ = trained(flux_config_of(output_name="a", max_steps=1))
    foreign = {"noise_offset": 0.1, "multires_iterations": 4, "min_snr_gamma": 5.0, "prediction_type": "v",
               "clip_skip": 2, "weighted_captions": True, "zero_terminal_snr": "on"}  # fmt: skip
    other, _, heard = trained(flux_config_of(output_name="b", max_steps=1, **foreign))
    assert same(plain, other)
    told = " ".join(facts["message"] for facts in heard.of("warning"))
    assert all(name in told for name in foreign)
    metadata = metadata_of(Path(flux_config_of().output_folder) / "b.safetensors")
    assert metadata["ss_noise_offset"] == "0.0" and metadata["ss_min_snr_gamma"] == "0.0"


def test_metadata_is_what_sd_scripts_writes_of_a_flux(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    trained(flux_config_of(guidance=1.0, t5_mask=True, timestep_sampling="sigmoid"))
    metadata = metadata_of(tmp_path / "out" / "blob.safetensors")
    expected = {
        "ss_base_model_version": "flux1",
        "ss_network_module": "networks.lora_flux",
        "ss_model_type": "flux",
        "ss_guidance_scale": "1.0",
        "ss_timestep_sampling": "sigmoid",
        "ss_sigmoid_scale": "1.0",
        "ss_discrete_flow_shift": "3.1582",
        "ss_model_prediction_type": "raw",
        "ss_weighting_scheme": "none",
        "ss_apply_t5_attn_mask": "True",
        "ss_v2": "False",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.implementation": "https://github.com/black-forest-labs/flux",
    }
    assert {key: metadata[key] for key in expected} == expected
    assert "modelspec.prediction_type" not in metadata
    assert str(tmp_path) not in json.dumps(metadata)


def test_metadata_of_schnell(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    files = make_flux(tmp_path / "schnell", "schnell")
    trained(flux_config_of(**files.settings, max_steps=1))
    assert metadata_of(tmp_path / "out" / "blob.safetensors")["modelspec.architecture"] == "flux-1-schnell/lora"


# ---- pictures


def test_previews_are_drawn_as_forge_does(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    drawn = {
        "preview_at_start": True,
        "preview_every_epochs": 0,
        "preview_steps": 2,
        "preview_guidance": 4.0,
        "preview_size": (64, 80),
        "preview_prompts": ("a blob",),
        "negative_prompt": "grey",
        "preview_seed": 9,
    }
    trained(flux_config_of(max_steps=1, **drawn))
    (path,) = (tmp_path / "out" / "blob-run" / "previews").iterdir()
    with Image.open(path) as picture:
        assert picture.size == (64, 80)
        infotext = picture.info["parameters"]
    assert infotext.startswith(
        "a blob\nSteps: 2, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 4, Seed: 9, "
        "Size: 64x80, Model: flux"
    )


def test_previews_of_schnell_have_no_guidance(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    files = make_flux(tmp_path / "schnell", "schnell")
    drawn = {"preview_at_start": True, "preview_every_epochs": 0, "preview_steps": 1}
    trained(flux_config_of(**files.settings, max_steps=1, **drawn))
    (path,) = (tmp_path / "out" / "blob-run" / "previews").iterdir()
    with Image.open(path) as picture:
        assert "Schedule type: Simple, CFG scale: 1, Seed" in picture.info["parameters"]


def test_a_grid_of_weights_is_drawn(flux_config_of: ConfigOf, tmp_path: Path) -> None:
    config = flux_config_of(max_steps=2, learning_rate=1e-2, preview_steps=2, preview_prompts=("a blob",))
    lora = train(config).lora
    sheet = draw_grid(replace(config, start_lora=str(lora)), (1.0,), tmp_path / "grid")
    assert sheet and sheet.is_file()
    cells = [path.read_bytes() for path in sorted((tmp_path / "grid").glob("cell-*.png"))]
    assert len(cells) == 2 and cells[0] != cells[1]


def test_parts_that_are_missing_are_named_with_the_other_mistakes(
    flux_config_of: ConfigOf, tmp_path: Path, flux: FluxFiles
) -> None:
    alone = tmp_path / "models" / "Stable-diffusion"
    alone.mkdir(parents=True)
    (alone / "flux.safetensors").write_bytes(flux.transformer.read_bytes())
    without = dict.fromkeys(flux.parts)
    config = flux_config_of(**{**without, "base_model": str(alone / "flux.safetensors")}, batch_size=0)
    with pytest.raises(BadInput) as caught:
        make_plan(config)
    assert {problem.setting for problem in caught.value.problems} == {*flux.parts, "batch_size"}


def test_a_step_takes_the_guidance_of_the_training(flux_config_of: ConfigOf) -> None:
    plan, models = loaded(flux_config_of(guidance=1.0))
    _, guided = loaded(flux_config_of(guidance=4.0))
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    accelerator = type("One", (), {"device": CPU})()
    losses = [Steps(plan, each, accelerator).loss(batch).item() for each in (models, guided)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)

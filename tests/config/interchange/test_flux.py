"""Flux in sd-scripts' words: what flux_train_network.py is told, and what its configs, GUIs and LoRAs say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lora_trainer.config import Config, Subset, problems
from lora_trainer.config.interchange import Imported, Source, from_sd_scripts, to_sd_scripts
from tests.config.interchange.conftest import Import, lora

FLUX = Config(
    family="flux", base_model="flux1-dev.safetensors", clip_l="clip_l.safetensors", t5xxl="t5xxl.safetensors",
    ae="ae.safetensors", output_name="zunda", subsets=(Subset("img"),),
)  # fmt: skip
# A TOML config as sd-scripts' documentation of Flux has it.
SD_SCRIPTS: dict[str, Any] = {
    "pretrained_model_name_or_path": "flux1-dev.safetensors", "clip_l": "clip_l.safetensors", "t5xxl": "t5xxl.st",
    "ae": "ae.safetensors", "network_module": "networks.lora_flux", "network_dim": 4, "network_alpha": 1,
    "network_train_unet_only": True, "cache_text_encoder_outputs": True, "cache_text_encoder_outputs_to_disk": True,
    "fp8_base": True, "mixed_precision": "bf16", "timestep_sampling": "shift", "discrete_flow_shift": 3.1582,
    "model_prediction_type": "raw", "guidance_scale": 1.0, "sdpa": True, "gradient_checkpointing": True,
}  # fmt: skip


def told(**values: Any) -> dict[str, Any]:
    return to_sd_scripts(replace(FLUX, **values)).training


def unsaid(**values: Any) -> str:
    return "\n".join(map(str, to_sd_scripts(replace(FLUX, **values)).report.unsupported))


def taken(network_args: tuple[str, ...] = (), **arguments: Any) -> Imported:
    return from_sd_scripts(Source({**SD_SCRIPTS, "network_args": list(network_args), **arguments}))


def reasons(result: Imported) -> str:
    return "\n".join(map(str, (*result.report.changed, *result.report.unsupported)))


def test_what_is_told_of_every_flux() -> None:
    arguments = told()
    wanted = {
        "clip_l": "clip_l.safetensors", "t5xxl": "t5xxl.safetensors", "ae": "ae.safetensors",
        "network_module": "networks.lora_flux", "timestep_sampling": "shift", "discrete_flow_shift": 3.1582,
        "model_prediction_type": "raw", "guidance_scale": 1.0, "network_train_unet_only": True,
        "cache_text_encoder_outputs": True, "max_bucket_reso": 2048,
    }  # fmt: skip
    assert {name: arguments.get(name) for name in wanted} == wanted
    assert not {"clip_skip", "max_token_length", "sample_sampler", "shuffle_caption", "network_args"} & arguments.keys()


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"swap_blocks": 18}, {"blocks_to_swap": 18, "gradient_checkpointing": True}),
        ({"t5_length": 256, "t5_mask": True}, {"t5xxl_max_token_length": 256, "apply_t5_attn_mask": True}),
        ({"base_precision": "fp8"}, {"fp8_base_unet": True}),
        ({"double_blocks": "0-5,8", "single_blocks": "none"},
         {"network_args": ["train_double_block_indices=0-5,8", "train_single_block_indices=none"]}),
        ({"kind": "LoHa"}, {"network_module": "lycoris.kohya", "network_args": ["algo=loha", "preset=attn-mlp"]}),
        ({"train": "both", "text_encoder_lr": 5e-5}, {"text_encoder_lr": 5e-5, "cache_text_encoder_outputs": True}),
    ],
)  # fmt: skip
def test_what_is_told_of_a_choice(values: dict[str, Any], wanted: dict[str, Any]) -> None:
    arguments = told(**values)
    assert {name: arguments.get(name) for name in wanted} == wanted


def test_captions_that_change_are_not_cached() -> None:
    assert "cache_text_encoder_outputs" not in told(caption_dropout=0.1)


def test_previews_have_guidance_and_no_cfg_scale() -> None:
    values: dict[str, Any] = {
        "preview_prompts": ("a {trigger} cat",),
        "trigger_word": "zunda",
        "negative_prompt": "bad",
    }
    exported = to_sd_scripts(replace(FLUX, preview_guidance=4.5, preview_cfg=7.0, **values))
    assert exported.prompts == ("a zunda cat --w 1024 --h 1024 --d 42 --s 20 --g 4.5",)
    back = from_sd_scripts(Source({**exported.training, "sample_prompts": list(exported.prompts)})).config
    assert (back.preview_guidance, back.preview_prompts, back.preview_cfg) == (4.5, ("a zunda cat",), 7.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"t5xxl": None}, "does not look for the file"),
        ({"base_precision": "nf4"}, "in the precision it computes in"),
        ({"loss": "huber", "huber_schedule": "snr"}, "ends the run with it for Flux"),
        ({"block_wise": True, "block_ranks": (4,) * 57}, "no such lists for Flux"),
        ({"min_timestep": 200}, "does not look at it for Flux"),
        ({"max_timestep": 800}, "does not look at it for Flux"),
        ({"kind": "LoKr", "double_blocks": "3"}, "all blocks of a LoKr alike"),
    ],
)
def test_what_cannot_be_told_is_said(values: dict[str, Any], said: str) -> None:
    assert problems(replace(FLUX, **values)) == ()
    assert said in unsaid(**values)


def test_lycoris_is_told_of_no_blocks() -> None:
    assert told(kind="LoKr", double_blocks="3")["network_args"] == ["algo=lokr", "preset=attn-mlp", "factor=-1"]


def test_a_config_of_sd_scripts() -> None:
    result = taken()
    config = result.config
    assert (config.family, config.kind, config.rank, config.alpha) == ("flux", "LoRA", 4, 1.0)
    assert (config.clip_l, config.t5xxl, config.ae) == ("clip_l.safetensors", "t5xxl.st", "ae.safetensors")
    assert (config.timestep_sampling, config.flow_shift, config.guidance) == ("shift", 3.1582, 1.0)
    assert (config.base_precision, config.cache_text, config.train) == ("fp8", "disk", "unet")
    assert (config.t5_length, config.t5_mask, config.swap_blocks) == (None, False, 0)
    assert not result.report.unsupported


@pytest.mark.parametrize(
    ("network_args", "arguments", "values"),
    [
        ((), {"blocks_to_swap": "10"}, {"swap_blocks": 10}),
        ((), {"split_mode": True}, {"swap_blocks": 18}),
        ((), {"split_mode": True, "blocks_to_swap": 4}, {"swap_blocks": 4}),
        ((), {"t5xxl_max_token_length": 256, "apply_t5_attn_mask": True}, {"t5_length": 256, "t5_mask": True}),
        ((), {"text_encoder_lr": [5e-5, 1e-5], "network_train_unet_only": False}, {"text_encoder_lr": 5e-5}),
        (("train_blocks=single",), {}, {"double_blocks": "none", "single_blocks": "all"}),
        (("train_blocks=double", "train_double_block_indices=0-3"), {},
         {"double_blocks": "0-3", "single_blocks": "none"}),
        (("train_double_block_indices=none", "train_single_block_indices=7,9"), {},
         {"double_blocks": "none", "single_blocks": "7,9"}),
        (("conv_dim=4", "conv_alpha=1"), {}, {"kind": "LoRA", "conv_rank": 0}),
        ((), {"noise_offset": 0.05, "min_snr_gamma": 7, "clip_skip": 2}, {"noise_offset": 0.0, "min_snr_gamma": 0.0}),
    ],
)  # fmt: skip
def test_arguments_in_our_words(
    network_args: tuple[str, ...], arguments: dict[str, Any], values: dict[str, Any]
) -> None:
    config = taken(network_args, **arguments).config
    assert {name: getattr(config, name) for name in values} == values
    assert {problem.setting for problem in problems(config)} <= {"subsets"}


@pytest.mark.parametrize(
    ("network_args", "arguments", "said"),
    [
        (("train_t5xxl=True",), {}, "CLIP-L alone is trained"),
        (("split_qkv=True",), {}, "share one LoRA"),
        (("img_attn_dim=8",), {}, "one rank"),
        (("in_dims=4,4,4,4,4",), {}, "before Flux's blocks"),
        (("block_dims=4,4",), {}, "no such lists for Flux"),
        (("train_double_block_indices=0-40",), {}, "names block 40"),
        ((), {"text_encoder_lr": [5e-5, 1e-5], "network_train_unet_only": False}, "CLIP-L alone is trained"),
        ((), {"model_prediction_type": "sigma_scaled"}, "taken as it is"),
        ((), {"model_prediction_type": None}, "no model_prediction_type"),
        ((), {"min_timestep": 200}, "min_timestep = 200 -> min_timestep = 0: sd-scripts does not look at it"),
        ((), {"model_type": "chroma"}, "only FLUX.1 itself"),
        ((), {"t5xxl_max_token_length": 128}, "one of 256, 512"),
        ((), {"sample_every_n_epochs": 1, "sample_prompts": ["a cat --l 4 --g 3"]}, "guidance (--g) alone"),
    ],
)
def test_what_cannot_be_taken_is_said(network_args: tuple[str, ...], arguments: dict[str, Any], said: str) -> None:
    assert said in reasons(taken(network_args, **arguments))


def test_the_gui_of_kohya_ss(imported: Import) -> None:
    gui = {
        "LoRA_type": "Flux1", "flux1_checkbox": True, "pretrained_model_name_or_path": "flux1-dev.safetensors",
        "clip_l": "clip_l.safetensors", "t5xxl": "t5xxl.st", "ae": "ae.safetensors", "network_dim": 16,
        "network_alpha": 16, "unet_lr": 3e-4, "text_encoder_lr": 0, "learning_rate": 3e-4, "epoch": 2,
        "timestep_sampling": "sigmoid", "discrete_flow_shift": 3, "model_prediction_type": "raw",
        "guidance_scale": 1, "apply_t5_attn_mask": True, "t5xxl_max_token_length": 512, "fp8_base": True,
        "flux1_cache_text_encoder_outputs": True, "flux1_cache_text_encoder_outputs_to_disk": True,
        "train_double_block_indices": "none", "train_single_block_indices": "0-9", "blocks_to_swap": 0,
        "split_mode": False, "train_blocks": "double", "img_attn_dim": "", "weighting_scheme": "logit_normal",
        "max_resolution": "512,512", "max_token_length": 75, "noise_offset": 0.05, "noise_offset_type": "Original",
    }  # fmt: skip
    config = imported(flux_json=gui).config
    assert (config.family, config.t5_mask, config.cache_text, config.train) == ("flux", True, "disk", "unet")
    assert (config.double_blocks, config.single_blocks) == ("none", "0-9")  # and train_blocks is not passed on
    assert (config.timestep_sampling, config.guidance, config.t5_length) == ("sigmoid", 1.0, 512)
    split = imported(split_json={**gui, "split_mode": True, "train_double_block_indices": "all"}).config
    assert (split.double_blocks, split.single_blocks) == ("none", "0-9")


def test_lora_scripts(imported: Import) -> None:
    text = """
model_train_type = "flux-lora"
model_type = "flux"
pretrained_model_name_or_path = "flux1-dev.safetensors"
ae = "ae.safetensors"
clip_l = "clip_l.safetensors"
t5xxl = "t5xxl.st"
timestep_sampling = "sigmoid"
sigmoid_scale = 1.0
model_prediction_type = "raw"
discrete_flow_shift = 1.0
guidance_scale = 1.0
train_t5xxl = true
apply_t5_attn_mask = true
network_module = "networks.lora_flux"
network_dim = 2
network_alpha = 16
fp8_base = true
"""
    result = imported(flux_toml=text)
    assert (result.config.family, result.config.timestep_sampling, result.config.t5_mask) == ("flux", "sigmoid", True)
    assert [str(line) for line in result.report.unsupported] == [
        "train_t5xxl = true: of Flux's text encoders CLIP-L alone is trained"
    ]


def test_a_launch_line(imported: Import) -> None:
    line = (
        "accelerate launch --mixed_precision bf16 flux_train_network.py --pretrained_model_name_or_path flux1-dev.st "
        "--clip_l clip_l.st --t5xxl t5.st --ae ae.st --network_module networks.lora_flux --network_dim 4 "
        "--timestep_sampling flux_shift --model_prediction_type raw --guidance_scale 1.0 --blocks_to_swap 20 "
        "--network_args train_blocks=double"
    )
    config = imported(train_sh=line).config
    assert (config.family, config.timestep_sampling, config.swap_blocks) == ("flux", "flux_shift", 20)
    assert (config.double_blocks, config.single_blocks) == ("all", "none")


def test_a_lora_of_sd_scripts(imported: Import) -> None:
    metadata = {
        "ss_base_model_version": "flux1", "modelspec.architecture": "flux-1-dev/lora",
        "ss_network_module": "networks.lora_flux", "ss_network_dim": "16", "ss_network_alpha": "8.0",
        "ss_network_args": json.dumps({"train_double_block_indices": "0-3", "train_single_block_indices": None}),
        "ss_apply_t5_attn_mask": "True", "ss_timestep_sampling": "flux_shift", "ss_discrete_flow_shift": "3.0",
        "ss_guidance_scale": "1.0", "ss_model_prediction_type": "raw", "ss_weighting_scheme": "uniform",
        "ss_sigmoid_scale": "1.0", "ss_logit_mean": "0.0", "ss_logit_std": "1.0", "ss_mode_scale": "1.29",
        "ss_model_type": "flux", "ss_fp8_base": "True", "ss_sd_model_name": "flux1-dev.safetensors",
    }  # fmt: skip
    tensor = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"
    result = imported(zunda_safetensors=lora(metadata, tensor))
    config = result.config
    assert (config.family, config.kind, config.rank, config.train) == ("flux", "LoRA", 16, "unet")
    assert (config.double_blocks, config.single_blocks, config.t5_mask) == ("0-3", "all", True)
    assert (config.timestep_sampling, config.guidance, config.base_precision) == ("flux_shift", 1.0, "fp8")
    assert not result.report.unsupported

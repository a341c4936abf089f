"""The table of settings: names, defaults, bounds and choices that others rely on, and that every row is complete."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from lora_trainer.config import FAMILIES, PANELS, SETTINGS, SUBSET_SETTINGS, Config, Setting, Subset, idle

SAMPLINGS = SETTINGS["timestep_sampling"].choices
EVERY_ROW = [*SETTINGS.values(), *SUBSET_SETTINGS.values()]

CHOICES: dict[str, set[Any]] = {
    "family": {"auto", "sd15", "sd2", "sdxl", "flux"},
    "prediction_type": {"auto", "epsilon", "v"},
    "zero_terminal_snr": {"auto", "on", "off"},
    "crop": {"none", "centre", "focus"},
    "background": {"white", "grey", "black", "keep"},
    "existing_captions": {"keep", "append", "prepend", "replace"},
    "caption_extension": {".txt", ".caption"},
    "max_token_length": {75, 150, 225},
    "masked_loss": {"off", "alpha", "folder"},
    "cache_latents": {"off", "memory", "disk"},
    "cache_text": {"auto", "off", "memory", "disk"},
    "mixed_precision": {"auto", "no", "fp16", "bf16"},
    "base_precision": {"auto", "fp32", "fp16", "bf16", "fp8", "int8", "nf4"},
    "gradient_checkpointing": {"auto", "on", "off"},
    "attention": {"sdpa", "xformers"},
    "schedule": {"cosine_with_restarts", "cosine", "linear", "polynomial", "constant_with_warmup", "constant"},
    "train": {"both", "unet", "text_encoder"},
    "loss": {"l2", "huber", "smooth_l1"},
    "huber_schedule": {"constant", "exponential", "snr"},
    "kind": {"LoRA", "LoCon", "LoHa", "LoKr", "DoRA"},
    "t5_length": {256, 512},
    "savings": {"checkpointing", "micro_batch", "cached_text", "swap", "optimizer_8bit", "fp8"},
    "timestep_sampling": {"sigma", "uniform", "sigmoid", "shift", "flux_shift"},
    "save_precision": {"fp16", "fp32", "bf16"},
    "save_state": {"off", "every", "end"},
    "overwrite": {"refuse", "number"},
}

DEFAULTS: dict[str, Any] = {
    "family": "auto", "clip_skip": None, "repeats": 10, "epochs": 10, "max_steps": 0, "resolution": None,
    "buckets": True, "min_bucket": 256, "bucket_step": 64, "tagger": "wd-v3", "tag_threshold": 0.35,
    "character_threshold": 0.85, "shuffle_tags": None, "keep_tokens": None, "max_token_length": 75,
    "caption_dropout": 0.0, "prior_loss_weight": 1.0, "cache_latents": "memory", "cache_text": "auto",
    "batch_size": 2, "gradient_accumulation": 1, "mixed_precision": "auto", "gradient_clipping": 1.0, "seed": -1,
    "learning_rate": 1e-4, "unet_lr": None, "text_encoder_lr": None, "warmup_percent": 0.0,
    "schedule": "cosine_with_restarts", "restarts": 1, "power": 1.0, "optimizer": None, "optimizer_args": (),
    "train": None, "min_snr_gamma": 0.0, "loss": "l2", "huber_c": 0.1, "kind": "LoRA", "rank": 32, "alpha": None,
    "conv_rank": 0, "block_wise": False, "noise_offset": 0.0, "multires_iterations": 0, "multires_discount": 0.3,
    "min_timestep": 0, "max_timestep": 1000, "flow_shift": 3.1582, "guidance": 1.0, "output_name": None,
    "save_every_epochs": 1, "save_every_steps": 0, "keep_last": 0, "save_precision": "fp16", "save_state": "every",
    "preview_steps": 20, "preview_cfg": 7.0, "preview_sampler": "Euler a", "preview_seed": 42,
    "preview_every_epochs": 1, "preview_at_start": True,
    "t5_tokenizer": None, "t5_length": None, "t5_mask": False, "swap_blocks": 0, "double_blocks": "all",
    "single_blocks": "all", "preview_guidance": 3.5, "timestep_sampling": "shift",
}  # fmt: skip

BOUNDS = {
    "clip_skip": (1, 12), "repeats": (1, 10000), "epochs": (1, 10000), "crop_size": (64, 4096),
    "tag_threshold": (0, 1), "keep_tokens": (0, 255), "caption_dropout": (0, 1), "prior_loss_weight": (0, 10),
    "batch_size": (1, 256), "gradient_accumulation": (1, 1024), "seed": (-1, 4294967295), "warmup_percent": (0, 100),
    "restarts": (1, 100), "min_snr_gamma": (0, 20), "rank": (1, 1024), "noise_offset": (0, 1),
    "multires_iterations": (0, 16), "multires_discount": (0, 1), "input_perturbation": (0, 1),
    "max_timestep": (1, 1000), "swap_blocks": (0, 35), "preview_guidance": (0, 30),
}  # fmt: skip

JAPANESE = {
    "base_model": "基本モデル", "epochs": "エポック数", "trigger_word": "トリガーワード", "rank": "ネットワークサイズ",
    "learning_rate": "学習率", "schedule": "学習率スケジューラー", "restarts": "反復回数", "seed": "ランダムシード",
    "save_precision": "LoRAの保存精度", "mixed_precision": "混合精度",
}  # fmt: skip


@pytest.mark.parametrize("row", EVERY_ROW, ids=lambda row: row.name)
def test_every_row_says_what_it_is(row: Setting) -> None:
    assert row.panel in PANELS
    assert row.label[0].isupper() or row.label.startswith("LoRA")
    assert row.help.endswith(".") and 10 < len(row.help) < 220
    assert row.types
    assert row.optional == (row.default is None)


@pytest.mark.parametrize(("name", "choices"), CHOICES.items())
def test_choices(name: str, choices: set[Any]) -> None:
    assert set(SETTINGS[name].choices) == choices


def test_optimizers_of_the_article_and_more() -> None:
    article = ["AdamW", "AdamW8bit", "Adafactor", "Lion", "DAdaptation", "DAdaptAdam", "Prodigy"]
    assert list(SETTINGS["optimizer"].choices[:7]) == article
    assert {"Lion8bit", "PagedAdamW8bit", "CAME"} <= set(SETTINGS["optimizer"].choices)


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_defaults(name: str, default: Any) -> None:
    assert getattr(Config(), name) == default


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_bounds(name: str, bounds: tuple[float, float]) -> None:
    assert (SETTINGS[name].minimum, SETTINGS[name].maximum) == bounds


@pytest.mark.parametrize(("name", "label"), JAPANESE.items())
def test_japanese_labels(name: str, label: str) -> None:
    assert SETTINGS[name].seaart == label


def test_every_default_is_among_the_choices() -> None:
    for row in EVERY_ROW:
        defaults = row.default if isinstance(row.default, tuple) else (row.default,)
        assert not row.choices or {*defaults} <= {None, *row.choices}, row.name


@pytest.mark.parametrize("rows", [SETTINGS, SUBSET_SETTINGS])
def test_names_of_sd_scripts_are_unique(rows: dict[str, Setting]) -> None:
    names = [name for row in rows.values() for name in row.kohya]
    keys = [row.metadata for row in rows.values() if row.metadata]
    assert len(names) == len(set(names))
    assert len(keys) == len(set(keys)) and all(key.startswith("ss_") for key in keys)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("rank", ("network_dim",)), ("epochs", ("max_train_epochs",)), ("block_ranks", ("network_args.block_dims",)),
     ("cache_latents", ("cache_latents", "cache_latents_to_disk")), ("optimizer", ("optimizer_type",)),
     ("swap_blocks", ("blocks_to_swap",)), ("t5_mask", ("apply_t5_attn_mask",)), ("t5_tokenizer", ()),
     ("double_blocks", ("network_args.train_double_block_indices",))],
)  # fmt: skip
def test_names_of_sd_scripts(name: str, arguments: tuple[str, ...]) -> None:
    assert SETTINGS[name].kohya == arguments


@pytest.mark.parametrize(
    ("family", "size", "bucket", "train"),
    [("sd15", 512, 1024, "both"), ("sdxl", 1024, 2048, "unet"), ("flux", 1024, 2048, "unet")],
)
def test_what_a_family_fills_in(family: str, size: int, bucket: int, train: str) -> None:
    config = Config().for_family(family)
    assert (config.family, config.resolution, config.max_bucket, config.train) == (family, (size, size), bucket, train)


def test_what_other_settings_fill_in() -> None:
    config = Config(rank=20, trigger_word="zdm", dataset_name="zdm", learning_rate=2e-4, resolution=(640, 448))
    filled = config.for_family("sdxl")
    assert (filled.alpha, filled.keep_tokens, filled.output_name) == (10.0, 1, "zdm")
    assert filled.unet_lr == filled.text_encoder_lr == 2e-4
    assert filled.crop_size == filled.preview_size == filled.resolution == (640, 448)
    assert Config().for_family("sdxl").keep_tokens == 0


def test_a_family_leaves_what_is_given() -> None:
    given: dict[str, Any] = {
        "resolution": (768, 512),
        "alpha": 4.0,
        "train": "text_encoder",
        "clip_skip": 2,
        "unet_lr": 3e-5,
    }
    filled = replace(Config(), **given).for_family("sd15")
    assert {name: getattr(filled, name) for name in given} == given


@pytest.mark.parametrize("family", FAMILIES)
def test_filling_in_twice_changes_nothing(family: str) -> None:
    filled = Config(subsets=(Subset(folder="a"),)).for_family(family)
    assert filled.for_family(family) == filled


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="sd15, sd2, sdxl, flux"):
        Config().for_family("auto")


# What sd-scripts' flux_train_network.py does not look at or refuses, and what it alone has.
NOT_FOR_FLUX = {
    "vae", "prediction_type", "zero_terminal_snr", "clip_skip", "weighted_captions", "max_token_length",
    "min_snr_gamma", "debiased_estimation", "v_pred_like_loss", "scale_v_pred_loss", "conv_rank", "conv_alpha",
    "noise_offset", "noise_offset_random_strength", "adaptive_noise_scale", "multires_iterations",
    "multires_discount", "negative_prompt", "preview_cfg", "preview_sampler", "attention",
}  # fmt: skip
FOR_FLUX_ALONE = {
    "clip_l", "t5xxl", "ae", "t5_tokenizer", "t5_length", "t5_mask", "swap_blocks", "double_blocks", "single_blocks",
    "timestep_sampling", "flow_shift", "guidance", "preview_guidance",
}  # fmt: skip
AROUND: dict[str, Any] = {"kind": "LoHa", "noise_offset": 0.1, "multires_iterations": 6}  # all depends on these


def test_what_means_something_for_flux() -> None:
    of = {family: set(idle(replace(Config(), family=family, **AROUND))) for family in FAMILIES}
    assert of["flux"] - of["sd15"] == NOT_FOR_FLUX
    assert of["sd15"] - of["flux"] == FOR_FLUX_ALONE
    assert of["sdxl"] - of["sd15"] == {"clip_skip"}


def test_what_depends_on_more_than_the_family() -> None:
    silent: dict[str, Any] = {"preview_every_epochs": 0, "preview_at_start": False}
    assert "preview_guidance" in idle(replace(Config(), family="flux", **silent))
    shift = {name: "flow_shift" in idle(Config(family="flux", timestep_sampling=name)) for name in SAMPLINGS}
    assert [name for name, unused in shift.items() if not unused] == ["sigma", "shift"]


def test_no_setting_has_a_section_s_name() -> None:
    assert not set(PANELS) & set(SETTINGS)


def test_settings_load_nothing_heavy() -> None:
    code = "import sys, lora_trainer.config; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    heavy = {"torch", "numpy", "PIL", "toml", "gradio", "fastapi", "diffusers", "asyncio", "unittest", "email"}
    assert not heavy & set(run.stdout.split())

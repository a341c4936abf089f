"""A config in sd-scripts' arguments: what it writes, and that it comes back as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.config import FAMILIES, SETTINGS, SUBSET_SETTINGS, Config, Setting, Subset, problems
from lora_trainer.config.interchange import Exported, Source, from_sd_scripts, to_sd_scripts

SOUND = Config(
    family="sd15", base_model="base.safetensors", output_name="zunda", subsets=(Subset("img"),),
    prediction_type="epsilon", zero_terminal_snr="off", shuffle_tags=False, mixed_precision="no", optimizer="AdamW",
    seed=1, tagger="none",
)  # fmt: skip
# Ours alone; what sd-scripts does by itself; and what depends on another setting or is another word for the same.
NOT_TOLD = {
    "family", "subsets", "crop", "crop_size", "tagger", "tag_threshold", "character_threshold", "existing_captions",
    "dataset_name", "trigger_word", "overwrite", "base_precision", "attention", "optimizer_args", "preview_prompts",
    "negative_prompt", "preview_size", "preview_steps", "preview_cfg", "preview_seed", "cache_text", "block_wise",
    "block_lr_weights", "block_ranks", "block_alphas", "resolution", "min_bucket", "max_bucket", "bucket_step",
    "mask_folder", "output_name", "kind", "conv_rank", "conv_alpha", "lokr_factor", "background", "excluded_tags",
    "tag_underscores",
}  # fmt: skip
HALVES = ",".join(["0.5"] * 9)
NOT_ALL_VALUES: dict[str, list[Any]] = {
    "prediction_type": ["epsilon", "v"],
    "zero_terminal_snr": ["on", "off"],
    "shuffle_tags": [True, False],
    "mixed_precision": ["no", "fp16", "bf16"],
    "gradient_checkpointing": ["auto", "on"],
    "save_state": ["every", "end"],
    "text_encoder_lr": [None, 0.0, 1e-5],
    "preview_sampler": ["Euler a", "Euler", "Heun", "DPM2", "DPM2 a", "DPM++ 2M", "DDIM", "PLMS"],
    "optimizer": [*SETTINGS["optimizer"].choices],
    "masked_loss": ["off", "alpha"],
    "train": ["both", "unet", "text_encoder"],
}


def values_of(row: Setting) -> st.SearchStrategy[Any]:
    if row.name in NOT_ALL_VALUES:
        return st.sampled_from(NOT_ALL_VALUES[row.name])
    if row.choices:
        return st.sampled_from(row.choices)
    least, most = row.minimum or 0, row.maximum if row.maximum is not None else 1000
    numbers: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(int(row.minimum or 0), int(min(most, 5000))),
        float: st.floats(least, 0.9 if row.below else min(most, 100), exclude_min=row.above is not None),
        str: st.text("aZ9_.- あ(:", max_size=12).map(lambda text: f"x{text}y"),
    }
    none = st.none() if row.optional else st.nothing()
    return none | numbers[row.type]


TOLD = {name: values_of(row) for name, row in SETTINGS.items() if row.kohya and name not in NOT_TOLD}


@st.composite
def configs(draw: st.DrawFn) -> Config:
    names = draw(st.lists(st.sampled_from(sorted(TOLD)), unique=True, max_size=12))
    family = draw(st.sampled_from(FAMILIES))
    config = replace(SOUND, family=family, **{name: draw(TOLD[name]) for name in names})
    wrong = {problem.setting for problem in problems(config)}
    return replace(config, **{name: getattr(SOUND, name) for name in wrong if "." not in name})


def back(exported: Exported, family: str) -> Config:
    source = Source(
        {**exported.training, "sample_prompts": list(exported.prompts)}, exported.dataset, family, whole=True
    )
    return from_sd_scripts(source).config


def effective(config: Config, family: str) -> dict[str, Any]:
    """Every value that means something, with what the family and other settings fill in."""
    config = replace(config, family=family).for_family(family)
    if config.swap_blocks and family == "flux":  # with which ours checkpoints unasked
        config = replace(config, gradient_checkpointing="on")
    if config.max_steps:  # whole steps are told, and no epochs
        steps = round(config.max_steps * config.warmup_percent / 100)
        config = replace(config, warmup_percent=steps / config.max_steps * 100, epochs=10)
    return {
        name: getattr(config, name) for name in TOLD if not (row := SETTINGS[name]).applies or row.applies.test(config)
    }


@settings(max_examples=100, deadline=None)
@given(configs())
def test_what_sd_scripts_is_told_comes_back(config: Config) -> None:
    if problems(config):
        return
    result = effective(back(to_sd_scripts(config), config.family), config.family)
    if config.family == "flux":  # for which sd-scripts does not look at them
        unread = ("prediction_type", "zero_terminal_snr", "min_timestep", "max_timestep")
        result = {name: value for name, value in result.items() if name not in unread}
    wanted = {name: value for name, value in effective(config, config.family).items() if name in result}
    assert {
        name: pytest.approx(value) if isinstance(value, float) else value for name, value in wanted.items()
    } == result


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional={
    name: values_of(row).filter(lambda value: value is not None)
    for name, row in SUBSET_SETTINGS.items() if name not in ("folder", "class_tokens")
}))  # fmt: skip
def test_a_folder_s_own_settings_come_back(own: dict[str, Any]) -> None:
    config = replace(SOUND, subsets=(Subset("img"), Subset("10_zunda", **own)))
    result = back(to_sd_scripts(config), "sd15").subsets[1]
    wanted = Subset("10_zunda", **{"repeats": 10, "class_tokens": "zunda", **own})
    same = {name for name in own if own[name] == getattr(config, name, None)}  # as for all folders
    assert all(getattr(result, name) in (None, own[name]) for name in same)
    rest = SUBSET_SETTINGS.keys() - same
    assert {name: getattr(result, name) for name in rest} == {name: getattr(wanted, name) for name in rest}


def told(**values: Any) -> dict[str, Any]:
    return to_sd_scripts(replace(SOUND, **values)).training


def reported(**values: Any) -> str:
    report = to_sd_scripts(replace(SOUND, **values)).report
    return "\n".join(map(str, (*report.changed, *report.unsupported)))


def test_what_sd_scripts_does_otherwise_is_written_out() -> None:
    arguments = told()
    wanted = {
        "network_module": "networks.lora", "network_dim": 32, "network_alpha": 16.0, "resolution": "512,512",
        "enable_bucket": True, "caption_extension": ".txt", "cache_latents": True, "train_batch_size": 2,
        "learning_rate": 1e-4, "lr_scheduler": "cosine_with_restarts", "max_train_epochs": 10, "sdpa": True,
        "save_every_n_epochs": 1, "save_precision": "fp16", "output_name": "zunda",
    }  # fmt: skip
    assert {name: arguments.get(name) for name in wanted} == wanted
    assert not {"max_train_steps", "noise_offset", "save_every_n_steps", "save_last_n_epochs"} & arguments.keys()


def test_the_vae_never_runs_in_fp16() -> None:
    assert told(mixed_precision="fp16")["no_half_vae"] is True
    assert "no_half_vae" not in told(mixed_precision="bf16")


@pytest.mark.parametrize(
    ("family", "script"),
    [("sd15", "train_network.py"), ("sdxl", "sdxl_train_network.py"), ("flux", "flux_train_network.py")],
)
def test_the_script(family: str, script: str) -> None:
    assert to_sd_scripts(replace(SOUND, family=family)).script == script


@pytest.mark.parametrize(
    ("values", "steps", "wanted"),
    [
        ({"warmup_percent": 10.0, "max_steps": 333}, None, 33),
        ({"warmup_percent": 10.0}, 70, 7),
        ({"warmup_percent": 10.0}, None, 0.1),
        ({"warmup_percent": 0.001953125}, None, 1.953125e-05),
        ({"warmup_percent": 0.0}, 70, None),
    ],
)
def test_a_warm_up_in_steps(values: dict[str, Any], steps: int | None, wanted: float | None) -> None:
    assert to_sd_scripts(replace(SOUND, **values), steps).training.get("lr_warmup_steps") == wanted


@pytest.mark.parametrize(
    ("family", "values", "wanted"),
    [
        ("sd15", {"block_lr_weights": "reverse+0.5"},
         ["down_lr_weight=reverse_linear+0.5", "up_lr_weight=reverse_linear+0.5"]),
        ("sd15", {"block_lr_weights": "flat+0.5"}, ["down_lr_weight=zeros+1.5", "up_lr_weight=zeros+1.5"]),
        ("sdxl", {"block_lr_weights": (0.5,) * 21},
         [f"down_lr_weight={HALVES}", "mid_lr_weight=0.5,0.5,0.5", f"up_lr_weight={HALVES}"]),
        ("sdxl", {"block_ranks": (4,) * 21},
         [f"block_dims={','.join(['1', *['4'] * 21, '1'])}", f"block_alphas={','.join(['1', *['2'] * 21, '1'])}"]),
    ],
)  # fmt: skip
def test_blocks(family: str, values: dict[str, Any], wanted: list[str]) -> None:
    assert told(family=family, block_wise=True, **values)["network_args"] == wanted


def test_blocks_come_back() -> None:
    config = replace(SOUND, block_wise=True, block_lr_weights="sine", block_ranks=(4,) * 25, block_alphas=(2.0,) * 25)
    result = back(to_sd_scripts(config), "sd15")
    assert (result.block_lr_weights, result.block_ranks, result.block_alphas) == ("sine", (4,) * 25, (2.0,) * 25)


@pytest.mark.parametrize("kind", ["LoRA", "LoCon", "LoHa", "LoKr", "DoRA"])
@pytest.mark.parametrize("conv_rank", [0, 4])
def test_kinds_come_back(kind: str, conv_rank: int) -> None:
    config = replace(SOUND, kind=kind, conv_rank=conv_rank if kind != "LoRA" else 0)
    if problems(config):
        return
    result = back(to_sd_scripts(config), "sd15")
    assert (result.kind, result.conv_rank) == (config.kind, config.conv_rank)


def test_previews_come_back() -> None:
    config = replace(SOUND, preview_prompts=("a {trigger} cat", "a dog"), negative_prompt="bad", preview_steps=30,
                     preview_size=(512, 768), preview_cfg=6.5, preview_seed=3, trigger_word="zunda")  # fmt: skip
    result = back(to_sd_scripts(config), "sd15")
    assert result.preview_prompts == ("a zunda cat", "a dog")
    kept = ("negative_prompt", "preview_steps", "preview_size", "preview_cfg", "preview_seed")
    assert [getattr(result, name) for name in kept] == [getattr(config, name) for name in kept]


def test_the_trigger_word_goes_before_captions_but_not_before_regularisation() -> None:
    subsets = (Subset("img"), Subset("own", caption_prefix="photo"), Subset("reg", is_regularisation=True))
    exported = to_sd_scripts(replace(SOUND, trigger_word="zunda", subsets=subsets))
    assert (exported.training["caption_prefix"], exported.training["keep_tokens"]) == ("zunda,", 1)
    entries = exported.dataset["datasets"][0]["subsets"]
    assert [entry.get("caption_prefix") for entry in entries] == [None, "photo zunda,", ""]


def test_folders_of_repeats_are_written_one_by_one(tmp_path: Path) -> None:
    for name in ("3_zunda", "5_zunda outfit", "notes"):
        (tmp_path / name).mkdir()
    entries = to_sd_scripts(replace(SOUND, subsets=(Subset(str(tmp_path)),))).dataset["datasets"][0]["subsets"]
    assert [(entry["num_repeats"], entry["class_tokens"]) for entry in entries] == [(3, "zunda"), (5, "zunda outfit")]
    assert all(Path(entry["image_dir"]).parent == tmp_path for entry in entries)


def test_a_mask_folder_goes_with_each_folder() -> None:
    subsets = (Subset("10_zunda"), Subset("reg", is_regularisation=True))
    exported = to_sd_scripts(replace(SOUND, masked_loss="folder", mask_folder="masks", subsets=subsets))
    assert exported.training["masked_loss"] is True
    assert exported.dataset["datasets"][0]["subsets"] == [
        {"image_dir": "10_zunda", "num_repeats": 10, "conditioning_data_dir": "masks"}
    ]
    assert len(exported.report.unsupported) >= 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"family": "auto"}, "taken as SD1.5"),
        ({"prediction_type": "auto"}, "takes it for epsilon"),
        ({"shuffle_tags": None}, "cannot tell tags"),
        ({"mixed_precision": "auto"}, "older GPUs"),
        ({"optimizer": None}, "AdamW on a CPU"),
        ({"text_encoder_lr": (1e-5, 2e-5), "family": "sdxl", "train": "both"}, "one rate for both"),
        ({"crop": "centre"}, "no such setting"),
        ({"bucket_step": 8}, "multiple of 64"),
        ({"base_precision": "nf4"}, "the precision it computes in"),
        ({"cache_text": "disk", "train": "unet"}, "gives the same LoRA"),
        ({"preview_sampler": "UniPC", "preview_prompts": ("a",)}, "no such sampler"),
        ({"scale_v_pred_loss": True, "prediction_type": "auto"}, "said for it"),
        ({"kind": "LoHa", "block_wise": True, "block_lr_weights": "cosine"}, "all blocks of a LoHa alike"),
        ({}, "previews of given prompts only"),
    ],
)
def test_what_sd_scripts_cannot_do_is_said(values: dict[str, Any], said: str) -> None:
    assert said in reported(**values)

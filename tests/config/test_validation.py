"""What is refused, with one problem for one mistake, and what is only said."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput, Config, Problem, Subset, check, file_name_fault, notices, problems

SOUND = Config(base_model="base.safetensors", dataset_name="zdm", subsets=(Subset(folder="pictures"),))


def refused(**changes: Any) -> list[tuple[str, str]]:
    return [(problem.setting, problem.problem) for problem in problems(replace(SOUND, **changes))]


def said(**changes: Any) -> list[str]:
    return [str(notice) for notice in notices(replace(SOUND, **changes))]


@pytest.mark.parametrize("family", ["auto", "sd15", "sd2", "sdxl", "flux"])
def test_a_sound_config_is_silent(family: str) -> None:
    config = replace(SOUND, family=family)
    assert problems(config) == notices(config) == ()
    check(config)


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl", "flux"])
def test_a_sound_config_filled_in_is_silent(family: str) -> None:
    config = SOUND.for_family(family)
    assert problems(config) == notices(config) == ()


def test_each_of_a_list_must_be_a_choice() -> None:
    assert refused(savings=("fp8", "checkpointing")) == refused(savings=()) == []
    assert refused(savings=("fp8", "prayer")) == [("savings", 'has "prayer", which is no choice')]


def test_an_empty_config_misses_three_things() -> None:
    with pytest.raises(BadInput) as caught:
        check(Config())
    assert [problem.setting for problem in caught.value.problems] == ["base_model", "subsets", "output_name"]


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        ("rank", 0, "must be at least 1"),
        ("rank", 1025, "must be at most 1024"),
        ("rank", "16", "must be a whole number, not text"),
        ("rank", None, "must be a whole number, not empty"),
        ("alpha", 0.0, "must be above 0"),
        ("alpha", -1.0, "must be above 0"),
        ("learning_rate", math.nan, "must be a finite number"),
        ("learning_rate", math.inf, "must be a finite number"),
        ("learning_rate", -1e-4, "must be at least 0"),
        ("text_encoder_lr", (1e-4, -1.0), "must be at least 0"),
        ("seed", 2**32, "must be at most 4294967295"),
        ("seed", -2, "must be at least -1"),
        ("dropout", 1.0, "must be below 1"),
        ("resolution", (512, 500), "must be a multiple of 8"),
        ("resolution", (512, 0), "must be at least 64"),
        ("crop_size", (8192, 512), "must be at most 4096"),
        ("bucket_step", 20, "must be a multiple of 8"),
        ("schedule", "cosinus", "is not one of the choices"),
        ("max_token_length", 100, "is not one of the choices"),
        ("vae", "a\0b", "contains a character that no file can hold"),
        ("preview_prompts", ("fine", "\ud800"), "contains a character that no file can hold"),
        ("keep_tokens", 256, "must be at most 255"),
        ("kind", "BOFT", "is not one of the choices"),
        ("lokr_factor", -2, "must be at least -1"),
        ("optimizer_args", ("weight_decay",), "is not of the form name=value"),
        ("min_bucket", 300, "must be a multiple of bucket_step (64)"),
        ("block_lr_weights", "zigzag", "is not a shape"),
        ("block_lr_weights", (1.0,) * 24, "has 24 numbers, one for each block is needed"),
        ("block_ranks", (0,) * 25, "leaves every block out"),
        ("double_blocks", "0-19", "names block 19, and the last one is 18"),
        ("single_blocks", "first", 'is not "all", "none", or numbers such as 0-5,8'),
        ("swap_blocks", 36, "must be at most 35"),
        ("t5_length", 77, "is not one of the choices"),
    ],
)
def test_a_value_is_refused(setting: str, value: Any, problem: str) -> None:
    assert refused(**{setting: value}) == [(setting, problem)]


@pytest.mark.parametrize(
    ("changes", "setting", "word"),
    [
        ({"schedule": "constant", "warmup_percent": 5.0}, "warmup_percent", "no warm-up"),
        ({"random_crop": True}, "cache_latents", "random_crop"),
        ({"colour_jitter": True, "cache_latents": "disk"}, "cache_latents", "colour_jitter"),
        ({"cache_text": "disk", "shuffle_tags": True}, "cache_text", "shuffle_tags"),
        ({"cache_text": "memory", "tag_dropout": 0.1}, "cache_text", "tag_dropout"),
        ({"cache_text": "memory", "caption_dropout": 0.1}, "cache_text", "caption_dropout"),
        ({"cache_text": "memory", "subsets": (Subset("a", shuffle_tags=True),)}, "cache_text", "shuffle_tags"),
        ({"cache_text": "memory", "train": "both"}, "cache_text", "text encoder"),
        ({"cache_text": "memory", "family": "sd15"}, "cache_text", "text encoder"),
        ({"resolution": (128, 512)}, "min_bucket", "above the resolution 128x512"),
        ({"resolution": (1536, 768), "family": "sd15"}, "max_bucket", "below the resolution"),
        ({"masked_loss": "folder"}, "mask_folder", "needs a folder"),
        ({"learning_rate": 0.0}, "learning_rate", "nothing would be learned"),
        ({"train": "text_encoder", "text_encoder_lr": 0.0}, "text_encoder_lr", "nothing would be learned"),
        ({"train": "text_encoder", "text_encoder_lr": (0.0, 0.0)}, "text_encoder_lr", "nothing would be learned"),
        ({"family": "sdxl", "unet_lr": 0.0}, "unet_lr", "nothing would be learned"),
        ({"family": "sd15", "text_encoder_lr": (1e-5, 1e-5)}, "text_encoder_lr", "one text encoder"),
        ({"prediction_type": "epsilon", "scale_v_pred_loss": True}, "scale_v_pred_loss", "v-prediction"),
        ({"prediction_type": "v", "v_pred_like_loss": 0.5}, "v_pred_like_loss", "epsilon"),
        ({"kind": "LoCon"}, "conv_rank", "needs a convolution rank"),
        ({"kind": "DoRA", "dropout": 0.1}, "dropout", "no such dropout for DoRA"),
        ({"kind": "LoKr", "lokr_factor": 0}, "lokr_factor", "can be divided by it"),
        ({"block_wise": True}, "block_wise", "nothing is said"),
        ({"block_wise": True, "block_ranks": (4,) * 23, "family": "sdxl"}, "block_ranks", "has 23 numbers"),
        ({"block_wise": True, "block_ranks": (4,) * 25, "family": "flux"}, "block_ranks", "has 25 numbers"),
        ({"kind": "LoCon", "conv_rank": 8, "family": "flux"}, "kind", "has no convolutions"),
        ({"double_blocks": "none", "single_blocks": "none", "family": "flux"}, "single_blocks", "left to train"),
        ({"swap_blocks": 2, "gradient_checkpointing": "off"}, "gradient_checkpointing", "moved in anew"),
        ({"text_encoder_lr": (1e-5, 1e-5), "family": "flux"}, "text_encoder_lr", "CLIP-L alone is trained"),
        ({"resolution": (1000, 1000), "family": "flux"}, "resolution", "squares of 16 x 16"),
        ({"bucket_step": 8, "family": "flux"}, "bucket_step", "squares of 16 x 16"),
        ({"preview_size": (512, 520), "family": "flux"}, "preview_size", "squares of 16 x 16"),
        ({"cache_text": "memory", "caption_dropout": 0.1, "family": "flux"}, "cache_text", "caption_dropout"),
        ({"min_timestep": 500, "max_timestep": 500}, "min_timestep", "below max_timestep"),
        ({"dataset_name": ""}, "output_name", "no name"),
        ({"subsets": (Subset(),)}, "subsets.1.folder", "is missing"),
        ({"subsets": (Subset("a"), Subset("b", repeats=0))}, "subsets.2.repeats", "at least 1"),
    ],
)
def test_values_that_do_not_go_together(changes: dict[str, Any], setting: str, word: str) -> None:
    ((found, problem),) = refused(**changes)
    assert found == setting and word in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "constant_with_warmup", "warmup_percent": 5.0},
        {"random_crop": True, "colour_jitter": True, "cache_latents": "off"},
        {"cache_text": "memory", "train": "unet"},
        {"cache_text": "disk", "family": "sdxl"},
        {"cache_text": "auto", "shuffle_tags": True, "train": "both"},
        {"resolution": (128, 128), "buckets": False},
        {"resolution": (1536, 1024), "family": "sdxl"},
        {"train": "unet", "text_encoder_lr": 0.0},
        {"family": "sdxl", "text_encoder_lr": (1e-5, 2e-5)},
        {"kind": "LoCon", "conv_rank": 8},
        {"kind": "LoHa", "rank_dropout": 0.1, "lokr_factor": 0},
        {"kind": "LoKr", "lokr_factor": 8, "conv_rank": 4},
        {"block_wise": True, "block_lr_weights": "cosine+0.25"},
        {"block_wise": True, "block_lr_weights": (1.0,) * 25, "family": "sd15"},
        {"block_wise": True, "block_lr_weights": (1.0,) * 23, "family": "sdxl"},
        {"block_wise": True, "block_ranks": (4,) * 21, "block_alphas": (2.0,) * 21, "family": "sdxl"},
        {"block_wise": True, "block_ranks": (4,) * 57, "block_lr_weights": (1.0,) * 57, "family": "flux"},
        {"double_blocks": "0-18", "single_blocks": "none", "family": "flux"},
        {"double_blocks": "none", "single_blocks": "none", "train": "text_encoder", "family": "flux"},
        {"double_blocks": "0-50", "family": "sdxl"},
        {"swap_blocks": 35, "gradient_checkpointing": "on", "family": "flux"},
        {"swap_blocks": 2, "gradient_checkpointing": "off", "family": "sd15"},
        {"cache_text": "memory", "train": "both", "family": "flux"},
        {"bucket_step": 16, "resolution": (528, 1008), "family": "flux"},
        {"dataset_name": "", "output_name": "zdm"},
        {"optimizer_args": ("weight_decay=0.01", "betas=(0.9, 0.99)")},
    ],
)
def test_values_that_go_together(changes: dict[str, Any]) -> None:
    assert refused(**changes) == []


def test_one_mistake_gives_one_problem_even_where_rules_look_at_it() -> None:
    assert refused(schedule="constantly", warmup_percent=5.0) == [("schedule", "is not one of the choices")]
    assert refused(bucket_step=-8) == [("bucket_step", "must be at least 8")]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("rank", 0), ("learning_rate", -1.0), ("learning_rate", 0.0), ("resolution", (512, 500)), ("dataset_name", "a/b")],
)
def test_one_mistake_gives_one_problem_even_where_others_follow_it(setting: str, value: Any) -> None:
    config = replace(SOUND, **{setting: value}).for_family("sd15")
    assert [problem.setting for problem in problems(config)] == [setting]


def test_previews_as_large_as_the_pictures_are_no_mistake_of_their_own() -> None:
    config = replace(SOUND, resolution=(1000, 1000)).for_family("flux")
    assert [problem.setting for problem in problems(config)] == ["resolution"]


def test_values_of_no_sensible_type() -> None:
    nonsense: Any = {"rank": "x", "alpha": "y", "subsets": ("a",), "resolution": 3.5, "flip": None}
    assert {setting for setting, _ in refused(**nonsense)} == set(nonsense)


def test_many_mistakes_at_once() -> None:
    found = refused(rank=0, epochs=0, output_name="a/b", min_timestep=900, max_timestep=800, block_lr_weights="x")
    assert {setting for setting, _ in found} == {"rank", "epochs", "output_name", "min_timestep", "block_lr_weights"}


@pytest.mark.parametrize(
    "name",
    ["", " ", "..", "a/b", "..\\a", "/root", "C:\\x", "a:b", 'a"b', "a<b", "a>b", "a|b", "a?", "a*", "a\nb", "a\0",
     "a\x7f", "CON", "nul", "com1", "LPT9.txt", "aux.safetensors", "a.", "a ", " a", "x" * 201, "絵" * 80],
)  # fmt: skip
def test_output_names_that_are_refused(name: str) -> None:
    assert file_name_fault(name)
    assert [setting for setting, _ in refused(output_name=name)] == ["output_name"]


@pytest.mark.parametrize(
    "name", ["zdm", "ずんだもん", "my LoRA v1.2", "a-b_c (2)", "😀", "console", "com10", ".hidden", "x" * 200]
)
def test_output_names_that_are_fine(name: str) -> None:
    assert file_name_fault(name) is None
    assert refused(output_name=name) == []


@given(st.text(max_size=30))
def test_a_fine_output_name_stays_in_its_folder(name: str) -> None:
    if file_name_fault(name) is None:
        assert not set(name) & set('/\\:*?"<>|\n\r\t\0') and name not in (".", "..") and name == name.strip()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"unet_lr": 2e-4, "text_encoder_lr": 5e-5}, "learning_rate = 0.0001: is ignored"),
        ({"optimizer": "Prodigy"}, "learning_rate = 0.0001: Prodigy finds the rate itself and wants 1"),
        ({"optimizer": "DAdaptation", "learning_rate": 1.0, "unet_lr": 0.5}, "unet_lr = 0.5: DAdaptation"),
        ({"alpha": 64.0}, "alpha = 64.0: is above the rank"),
        ({"family": "sdxl", "clip_skip": 2}, "clip_skip = 2: has no effect. SDXL and Flux ignore it."),
        ({"schedule": "cosine", "restarts": 3}, "restarts = 3: has no effect. Used only by the schedule cosine_with"),
        ({"conv_rank": 8}, "conv_rank = 8: has no effect"),
        ({"block_lr_weights": "cosine"}, 'block_lr_weights = "cosine": has no effect'),
        ({"family": "sd15", "guidance": 3.5}, "guidance = 3.5: has no effect. Used for Flux only."),
        ({"family": "sdxl", "mixed_precision": "fp16"}, 'mixed_precision = "fp16": this family may give NaN'),
        ({"zero_terminal_snr": "on", "prediction_type": "epsilon"}, 'zero_terminal_snr = "on": an epsilon model'),
        ({"noise_offset": 0.05, "multires_iterations": 6}, "noise_offset = 0.05: multires noise does much the same"),
        ({"masked_loss": "alpha", "mask_folder": "masks"}, 'mask_folder = "masks": has no effect'),
        ({"family": "flux", "guidance": 3.5}, "guidance = 3.5: LoRAs of FLUX.1 dev are trained at 1"),
        ({"family": "flux", "shuffle_tags": True}, "shuffle_tags = true: captions that change each time keep the"),
        ({"family": "flux", "vae": "a.pt"}, 'vae = "a.pt": has no effect. Not for Flux, whose autoencoder'),
        ({"family": "flux", "noise_offset": 0.1}, "noise_offset = 0.1: has no effect. Flux does not use it."),
        ({"family": "flux", "preview_cfg": 5.0}, "preview_cfg = 5.0: has no effect. Used only when previews are made"),
        ({"family": "sdxl", "swap_blocks": 4}, "swap_blocks = 4: has no effect. Used for Flux only."),
    ],
)
def test_what_is_said_but_not_refused(changes: dict[str, Any], sentence: str) -> None:
    assert refused(**changes) == []
    (notice,) = said(**changes)
    assert notice.startswith(sentence)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "Prodigy", "learning_rate": 1.0, "text_encoder_lr": (1.0, 1.0)},
        {"family": "sd15", "clip_skip": 2},
        {"restarts": 3},
        {"unet_lr": 2e-4},
        {"family": "sd15", "mixed_precision": "fp16"},
    ],
)
def test_nothing_is_said_of_what_is_fine(changes: dict[str, Any]) -> None:
    assert said(**changes) == []


def test_a_problem_reads_as_a_sentence() -> None:
    assert (
        str(Problem("comment", "ず" * 200, "is too long", "Shorten it."))
        == f'comment = "{"ず" * 78}…: is too long. Shorten it.'
    )
    assert str(Problem("base_model", None, "is missing", "Give a path.")) == "base_model: is missing. Give a path."
    assert str(BadInput([Problem("a", 1, "x", "y."), Problem("b", 2, "z", "w.")])) == "a = 1: x. y.\nb = 2: z. w."

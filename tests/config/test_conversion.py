"""Configs as plain dictionaries, and single values given as text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lora_trainer.config import BadInput, Config, Subset, as_dict, from_dict, with_values


def test_a_dictionary_survives_json() -> None:
    config = Config(
        family="sdxl", subsets=(Subset("絵", repeats=2),), resolution=(768, 512), text_encoder_lr=(1.0, 0.5)
    )
    plain = as_dict(config)
    assert plain["resolution"] == [768, 512] and plain["subsets"][0]["folder"] == "絵" and "vae" not in plain
    assert from_dict(json.loads(json.dumps(plain))) == config


def test_nothing_given_is_the_default_config() -> None:
    assert from_dict({}) == from_dict({"vae": None, "alpha": None}) == Config()


def test_null_is_refused_where_a_value_is_needed() -> None:
    with pytest.raises(BadInput, match="rank: must be a whole number, not empty"):
        from_dict({"rank": None})


@pytest.mark.parametrize("folder", ["/home/someone/pictures", "C:\\Users\\someone\\pictures", "pictures/", "pictures"])
def test_no_personal_path_is_published(folder: str) -> None:
    config = Config(base_model=f"{folder}/base.safetensors", output_folder=folder, subsets=(Subset(folder=folder),))
    published = as_dict(config, whole_paths=False)
    assert "someone" not in json.dumps(published)
    assert (published["base_model"], published["output_folder"]) == ("base.safetensors", "pictures")
    assert published["subsets"][0]["folder"] == "pictures"


@pytest.mark.parametrize(
    ("change", "setting", "value"),
    [
        ("rank=16", "rank", 16),
        (" rank = 16 ", "rank", 16),
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("flip=true", "flip", True),
        ("flip=off", "flip", False),
        ("shuffle_tags=yes", "shuffle_tags", True),
        ("zero_terminal_snr=on", "zero_terminal_snr", "on"),
        ("resolution=512x768", "resolution", (512, 768)),
        ("resolution=512, 768", "resolution", (512, 768)),
        ("resolution=[512, 768]", "resolution", (512, 768)),
        ("resolution=640", "resolution", (640, 640)),
        ("text_encoder_lr=5e-5", "text_encoder_lr", 5e-5),
        ("text_encoder_lr=5e-5,1e-5", "text_encoder_lr", (5e-5, 1e-5)),
        ("block_lr_weights=cosine", "block_lr_weights", "cosine"),
        ("block_lr_weights=1,0.5,0", "block_lr_weights", (1.0, 0.5, 0.0)),
        ("block_ranks=4,8", "block_ranks", (4, 8)),
        ("vae=", "vae", None),
        ("alpha=none", "alpha", None),
        ("vae=C:\\a=b\\x.safetensors", "vae", "C:\\a=b\\x.safetensors"),
        ("trigger_word=", "trigger_word", ""),
        ("trigger_word=123", "trigger_word", "123"),
        ("max_token_length=225", "max_token_length", 225),
        ("preview_prompts=1girl, smile", "preview_prompts", ("1girl, smile",)),
        ("preview_prompts=[a:0.5], b", "preview_prompts", ("[a:0.5], b",)),
        ('preview_prompts=["a, b", "c"]', "preview_prompts", ("a, b", "c")),
        ("preview_prompts=", "preview_prompts", ()),
        ("savings=fp8, checkpointing", "savings", ("fp8", "checkpointing")),
        ("savings=", "savings", ()),
        ("comment=[x]", "comment", "[x]"),
        ('subsets=[{"folder": "a"}]', "subsets", (Subset(folder="a"),)),
    ],
)
def test_values_as_text(change: str, setting: str, value: Any) -> None:
    assert getattr(with_values(Config(), [change]), setting) == value


def test_problems_of_values_as_text_come_together() -> None:
    sound = Config(base_model="b", dataset_name="d", subsets=(Subset(folder="f"),))
    with pytest.raises(BadInput) as caught:
        with_values(sound, ["rank=many", "flip=perhaps", "ranc=3", "epochs", "batch_size=0", "resolution=big"])
    found = [problem.setting for problem in caught.value.problems]
    assert sorted(found) == ["batch_size", "epochs", "flip", "ranc", "rank", "resolution"]


@pytest.mark.parametrize(
    ("changes", "rate"),
    [
        (["optimizer=Prodigy"], 1.0),
        (["optimizer=DAdaptAdam", "learning_rate=0.5"], 0.5),
        (["optimizer=AdamW"], 1e-4),
    ],
)
def test_an_optimizer_that_finds_its_own_rate_gets_rate_1(changes: list[str], rate: float) -> None:
    assert with_values(Config(), changes).learning_rate == rate
    assert with_values(Config(learning_rate=0.25), ["optimizer=Prodigy"]).learning_rate == 0.25

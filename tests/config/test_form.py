from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import PRESETS, SETTINGS, BadInput, Config, Subset, apply_preset
from lora_trainer.config.form import AUTOMATIC, Kind, as_form, choices, from_form, kind, preset_form, slider


def test_a_form_gives_back_the_config_that_it_was_made_of() -> None:
    assert from_form(as_form(Config())) == Config()
    config = Config(
        subsets=(Subset("pictures", repeats=3),), resolution=(512, 768),
        optimizer_args=("weight_decay=0.01", "eps=1e-6"),
        noise_offset=0.0357, text_encoder_lr=(5e-5, 1e-5), shuffle_tags=True, optimizer="Lion", max_token_length=225,
        savings=("fp8",), block_wise=True, block_lr_weights="cosine+0.25", block_ranks=tuple(range(25)),
    )  # fmt: skip
    assert from_form(as_form(config)) == config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_in_the_form_is_the_preset_in_the_config(name: str) -> None:
    assert from_form(as_form(Config()) | preset_form(name)) == apply_preset(Config(), name)


FLOATS = [name for name, row in SETTINGS.items() if row.type is float]


@given(st.dictionaries(st.sampled_from(FLOATS), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_kept_to_the_last_digit(values: dict[str, Any]) -> None:
    config = replace(Config(), **values)
    assert from_form(as_form(config)) == config


RATES = [("0.0001", 1e-4), ("5e-5", 5e-5), (" 1E-4 ", 1e-4), ("1", 1.0)]


@pytest.mark.parametrize(("typed", "rate"), RATES)
def test_numbers_may_be_typed_in_any_way(typed: str, rate: float) -> None:
    assert from_form({"learning_rate": typed}).learning_rate == rate


def test_what_is_automatic_or_empty_is_none() -> None:
    config = from_form({"optimizer": AUTOMATIC, "train": AUTOMATIC, "alpha": "", "resolution": " ", "unet_lr": None})
    assert config == Config()


def test_lines_are_a_list_without_the_empty_ones() -> None:
    assert from_form({"preview_prompts": "a cat, (red:1.2)\n\n  a dog \n"}).preview_prompts == (
        "a cat, (red:1.2)",
        "a dog",
    )


def test_every_mistake_of_a_form_is_told_at_once() -> None:
    wrong: dict[str, Any] = {
        "rank": None, "epochs": "ten", "learning_rate": "", "resolution": "wide", "tagger": "mine", "unknown": 1,
        "base_model": "base.safetensors", "dataset_name": "zdm", "subsets": [{"folder": "pictures"}],
    }  # fmt: skip
    with pytest.raises(BadInput) as caught:
        from_form(wrong)
    told = {problem.setting: problem.problem for problem in caught.value.problems}
    assert told.keys() == {"rank", "epochs", "learning_rate", "resolution", "tagger", "unknown"}
    assert told["rank"] == told["learning_rate"] == "is empty"


def test_a_widget_holds_every_value_that_its_setting_may_have() -> None:
    for name, row in SETTINGS.items():
        if name == "subsets":
            continue
        assert kind(row) in get_args(Kind)
        if kind(row) == "slider":
            span = slider(row)
            assert span and span[:2] == (row.minimum, row.maximum) and not row.optional, name
        if kind(row) == "choice":
            assert as_form(Config())[name] in choices(row), name

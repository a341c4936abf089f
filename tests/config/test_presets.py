"""Presets set what suits their family, say why, and can be trained as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lora_trainer.config import PRESETS, BadInput, Config, Subset, apply_preset, load_toml, notices, problems

SOUND = Config(base_model="base.safetensors", dataset_name="zdm", subsets=(Subset(folder="pictures"),))


def test_every_base_has_every_subject() -> None:
    bases, subjects = ("sd15", "sdxl", "pony", "illustrious", "noobai", "flux"), ("character", "style", "concept")
    assert set(PRESETS) == {f"{base}/{subject}" for base in bases for subject in subjects}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_can_be_trained_and_leaves_nothing_to_say(name: str) -> None:
    config = apply_preset(SOUND, name)
    base = name.partition("/")[0]
    assert config.family == (base if base in ("sd15", "flux") else "sdxl")
    assert problems(config) == notices(config) == ()
    assert problems(config.for_family(config.family)) == ()


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_has_a_reason(name: str) -> None:
    preset = PRESETS[name]
    assert set(preset.values) == set(preset.reasons)
    assert all(reason.endswith(".") for reason in preset.reasons.values())


def test_what_sets_the_families_apart() -> None:
    noobai, pony, sd15 = (apply_preset(SOUND, f"{base}/character") for base in ("noobai", "pony", "sd15"))
    assert (noobai.prediction_type, noobai.zero_terminal_snr, noobai.max_token_length) == ("v", "on", 225)
    assert (pony.prediction_type, pony.clip_skip, pony.max_token_length) == ("auto", None, 225)
    assert (sd15.clip_skip, sd15.text_encoder_lr, sd15.max_token_length) == (2, 5e-5, 75)


@pytest.mark.parametrize("subject", ["character", "style", "concept"])
def test_captions_of_flux_are_sentences_that_stay_as_they_are(subject: str) -> None:
    config = apply_preset(SOUND, f"flux/{subject}")
    assert (config.tagger, config.train, config.guidance) == ("florence-2", "unet", 1.0)
    assert not (config.shuffle_tags or config.tag_dropout or config.caption_dropout)
    assert "min_snr_gamma" not in PRESETS[f"flux/{subject}"].values
    assert problems(replace(config, cache_text="memory")) == ()


def test_a_preset_keeps_the_rest() -> None:
    assert apply_preset(SOUND, "sdxl/style").subsets == SOUND.subsets


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(BadInput, match="sd15/character"):
        apply_preset(SOUND, "sd14/character")


def test_a_file_stands_over_the_preset_and_changes_over_both() -> None:
    start = apply_preset(Config(), "pony/character")
    config = load_toml("rank = 7\nepochs = 3", ["epochs=4"], start)
    assert (config.rank, config.epochs, config.max_token_length) == (7, 4, 225)

"""Named starting points: a kind of base model and what is to be learned, such as "illustrious/character"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from lora_trainer.config.advice import idle
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.settings import Config

Choices = dict[str, tuple[Any, str]]  # setting -> its value and the reason for it


@dataclass(frozen=True)
class Preset:
    """Values to set, and the reason for each of them."""

    name: str
    values: Mapping[str, Any]
    reasons: Mapping[str, str]


LONG_CAPTIONS = (225, "Lists of tags are often longer than 75 tokens.")
ANIME_NEGATIVE = ("lowres, worst quality, bad anatomy, watermark", "What this model was taught to call bad.")

BASES: dict[str, Choices] = {
    "sd15": {
        "family": ("sd15", "The base is a Stable Diffusion 1.5."),
        "clip_skip": (2, "Most SD1.5 anime checkpoints were made with 2; set 1 for photographs."),
        "text_encoder_lr": (5e-5, "The text encoder is ruined sooner than the U-Net."),
    },
    "sdxl": {
        "family": ("sdxl", "The base is an SDXL."),
        "train": ("unet", "Two large text encoders gain little and are easily ruined."),
    },
    "pony": {
        "family": ("sdxl", "Pony is an SDXL; the clip skip 2 that it asks for is what every SDXL uses anyway."),
        "train": ("unet", "Pony knows tags well; its text encoders need no training."),
        "max_token_length": LONG_CAPTIONS,
        "negative_prompt": ("score_6, score_5, score_4", "Pony rates quality by scores, here the low ones."),
    },
    "illustrious": {
        "family": ("sdxl", "Illustrious is an SDXL."),
        "train": ("unet", "Illustrious knows tags well; its text encoders need no training."),
        "max_token_length": LONG_CAPTIONS,
        "negative_prompt": ANIME_NEGATIVE,
    },
    "noobai": {
        "family": ("sdxl", "NoobAI is an SDXL."),
        "train": ("unet", "NoobAI knows tags well; its text encoders need no training."),
        "prediction_type": ("v", "This is for NoobAI v-pred; set auto for the epsilon versions."),
        "zero_terminal_snr": ("on", "NoobAI v-pred was trained from pure noise."),
        "noise_offset": (0.0, "With zero terminal SNR the model reaches black and white by itself."),
        "preview_cfg": (5.0, "v-pred models burn at higher CFG scales."),
        "preview_sampler": ("Euler", "The sampler that NoobAI's makers advise for v-pred."),
        "max_token_length": LONG_CAPTIONS,
        "negative_prompt": ANIME_NEGATIVE,
    },
    "flux": {
        "family": ("flux", "The base is a FLUX.1."),
        "train": ("unet", "Flux reads whole sentences; CLIP-L adds little to it."),
        "tagger": ("florence-2", "Flux was taught with sentences, not with tags."),
        "shuffle_tags": (False, "A sentence's parts belong where they are."),
        "tag_dropout": (0.0, "Captions that stay as they are need the large T5-XXL only once."),
        "caption_dropout": (0.0, "Captions that stay as they are need the large T5-XXL only once."),
        "guidance": (1.0, "A LoRA trained at 1 works at every guidance that pictures are made with."),
    },
}

SUBJECTS: dict[str, Choices] = {
    "character": {
        "rank": (16, "A character needs little room; more learns backgrounds too."),
        "alpha": (8.0, "Half the rank."),
        "repeats": (10, "A character has few pictures, often 10 to 40."),
        "epochs": (10, "Ten saves to choose the best from."),
        "shuffle_tags": (True, "Each tag is learned by itself, so that clothes can be changed."),
        "min_snr_gamma": (5.0, "Steadier training."),
    },
    "style": {
        "rank": (32, "A style is in every part of a picture."),
        "alpha": (16.0, "Half the rank."),
        "repeats": (4, "A style has more pictures, often 50 to 200."),
        "epochs": (10, "Ten saves to choose the best from."),
        "caption_dropout": (0.1, "The style should also come without being asked for."),
        "shuffle_tags": (True, "No tag should be tied to the style by its place."),
        "flip": (True, "A style is the same mirrored; twice the pictures for nothing."),
        "min_snr_gamma": (5.0, "Steadier training."),
    },
    "concept": {
        "rank": (16, "Clothes, poses and things need little room."),
        "alpha": (8.0, "Half the rank."),
        "repeats": (6, "A concept needs varied pictures, often 30 to 80."),
        "epochs": (10, "Ten saves to choose the best from."),
        "shuffle_tags": (True, "The concept should not be tied to who is shown with it."),
        "tag_dropout": (0.05, "The concept should not lean on the tags around it."),
        "min_snr_gamma": (5.0, "Steadier training."),
    },
}


def apply_preset(config: Config, name: str) -> Config:
    """``config`` with the preset's values in place of its own; raises BadInput if there is no such preset."""
    if name not in PRESETS:
        raise BadInput(Problem("preset", name, "there is no such preset", f"Use one of {', '.join(PRESETS)}."))
    return replace(config, **PRESETS[name].values)


def _preset(base: str, subject: str) -> Preset:
    """The base's choices come before the subject's; what means nothing for the base's family is left out."""
    chosen = SUBJECTS[subject] | BASES[base]
    unused = idle(replace(Config(), **{setting: value for setting, (value, _) in chosen.items()}))
    chosen = {setting: choice for setting, choice in chosen.items() if setting not in unused}
    return Preset(
        f"{base}/{subject}",
        MappingProxyType({setting: value for setting, (value, _) in chosen.items()}),
        MappingProxyType({setting: reason for setting, (_, reason) in chosen.items()}),
    )


PRESETS: dict[str, Preset] = {
    preset.name: preset for preset in (_preset(base, subject) for base in BASES for subject in SUBJECTS)
}

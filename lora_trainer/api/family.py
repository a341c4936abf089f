"""Which family a config's base model is of, before a worker has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lora_trainer.config import FAMILIES, Config
from lora_trainer.inspecting.catalogue import CATALOGUE

FULL_SIZE = 500_000_000  # parameters: every published base of a family has more, a miniature far fewer


def is_full_size(config: Config) -> bool:
    """Whether the base model is as large as its family's, so that a LoRA of it is, too."""
    return bool(CATALOGUE.read(Path(config.base_model)).get("parameters", 0) > FULL_SIZE)


def with_family(config: Config) -> Config:
    """The config with the family that its base model's header tells, where the config leaves it to the file.

    As it was where there is no such file, or the file is no model.
    """
    if config.family != "auto" or not config.base_model:
        return config
    family = CATALOGUE.read(Path(config.base_model)).get("family")
    return replace(config, family=family) if family in FAMILIES else config

"""Which family a config's base model is of, before a worker has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lora_trainer.config import FAMILIES, Config
from lora_trainer.inspecting.catalogue import CATALOGUE


def with_family(config: Config) -> Config:
    """The config with the family that its base model's header tells, where the config leaves it to the file.

    As it was where there is no such file, or the file is no model.
    """
    if config.family != "auto" or not config.base_model:
        return config
    family = CATALOGUE.read(Path(config.base_model)).get("family")
    return replace(config, family=family) if family in FAMILIES else config

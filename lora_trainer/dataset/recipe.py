"""How pictures are to be cut, as the settings say it."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config import Config
from lora_trainer.dataset.buckets import Size

USUAL_SIZE = (1024, 1024)  # where none is asked for: the largest that any family trains at, and nothing grows for it


@dataclass(frozen=True)
class Recipe:
    """How pictures are cut; its text, kept with each picture, tells which are done already."""

    mode: str
    size: Size
    enlarge: bool
    background: str

    def __str__(self) -> str:
        limit = "" if self.enlarge else "at most "
        return f"{self.mode} {limit}{self.size[0]}x{self.size[1]} on {self.background}"


def recipe_of(config: Config) -> Recipe:
    size = config.crop_size or config.resolution
    return Recipe(config.crop, size or USUAL_SIZE, bool(size) and not config.bucket_no_upscale, config.background)

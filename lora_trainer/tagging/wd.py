"""The WD14 family: SmilingWolf's taggers for drawn pictures. https://huggingface.co/SmilingWolf"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.tagging.onnx_model import Notice, TagModel, open_tag_model
from lora_trainer.tagging.weights import damaged
from lora_trainer.tagging.wording import TagOptions, worded

GENERAL, CHARACTER = 0, 4  # Danbooru's categories; 9, a rating, is never a tag


@dataclass(frozen=True)
class Tag:
    name: str
    category: int


@dataclass(frozen=True)
class WdTagger:
    """`tags`: in the order of the model's output."""

    model: TagModel
    tags: Sequence[Tag]
    options: TagOptions

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The picture (RGB) as the model takes it: float32 (side, side, 3), blue first, 0 to 255."""
        return np.asarray(white_square(image, self.model.side), dtype=np.float32)[:, :, ::-1]

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        """Characters, then all else, the surest first."""
        return [self._worded(scores.tolist()) for scores in self.model.scores(pixels)]

    def _worded(self, scores: Sequence[float]) -> str:
        thresholds = {GENERAL: self.options.threshold, CHARACTER: self.options.character_threshold}
        found = [
            (tag.category != CHARACTER, -score, tag.name)
            for tag, score in zip(self.tags, scores)
            if score >= thresholds.get(tag.category, np.inf)
        ]
        return worded((name for _, _, name in sorted(found)), self.options)


def load(folder: Path, options: TagOptions, notice: Notice) -> WdTagger:
    """The tagger of model.onnx and selected_tags.csv; BadInput where one is damaged or they do not belong together."""
    tags_file = folder / "selected_tags.csv"
    tags = read_tags(tags_file)
    return WdTagger(open_tag_model(folder / "model.onnx", tags_file, len(tags), notice), tags, options)


def read_tags(path: Path) -> list[Tag]:
    """The rows of selected_tags.csv: tag_id, name, category, count. Raises BadInput."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [Tag(row["name"], int(row["category"])) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise damaged(path, "is no list of tags") from error


def white_square(image: Image.Image, side: int) -> Image.Image:
    """The picture (RGB) in the middle of a white square, bicubically resized to `side`.

    Its longer side is resized before the other is padded, so that a long narrow picture needs no square of its length.
    """
    longest, wide = max(image.size), image.width >= image.height
    narrow = image.resize((side, image.height) if wide else (image.width, side), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, longest) if wide else (longest, side), "white")
    square.paste(narrow, (0, (longest - image.height) // 2) if wide else ((longest - image.width) // 2, 0))
    return square.resize((side, side), Image.Resampling.BICUBIC)

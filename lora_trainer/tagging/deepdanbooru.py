"""DeepDanbooru, the elder tagger for drawn pictures. https://github.com/KichangKim/DeepDanbooru"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.tagging.onnx_model import Notice, TagModel, open_tag_model
from lora_trainer.tagging.weights import damaged
from lora_trainer.tagging.wording import TagOptions, worded

RATING = "rating:"  # begins three names that say nothing of what is seen


@dataclass(frozen=True)
class DeepDanbooru:
    """`tags`: in the order of the model's output; characters are among them without a mark."""

    model: TagModel
    tags: Sequence[str]
    options: TagOptions

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The picture (RGB) as the model takes it: float32 (side, side, 3), red first, 0 to 1."""
        return edged_square(image, self.model.side).astype(np.float32) / 255

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        """The surest tags first."""
        return [self._worded(scores.tolist()) for scores in self.model.scores(pixels)]

    def _worded(self, scores: Sequence[float]) -> str:
        found = [
            (-score, tag)
            for tag, score in zip(self.tags, scores)
            if score >= self.options.threshold and not tag.startswith(RATING)
        ]
        return worded((tag for _, tag in sorted(found)), self.options)


def load(folder: Path, options: TagOptions, notice: Notice) -> DeepDanbooru:
    """The tagger of deepdanbooru.onnx and tags.txt; BadInput where one is damaged or they do not belong together."""
    tags_file = folder / "tags.txt"
    try:
        tags = tags_file.read_text(encoding="utf-8").split()
    except ValueError as error:
        raise damaged(tags_file, "is no list of tags") from error
    return DeepDanbooru(open_tag_model(folder / "deepdanbooru.onnx", tags_file, len(tags), notice), tags, options)


def edged_square(image: Image.Image, side: int) -> np.ndarray:
    """The picture (RGB) resized to fit a square, which its outermost pixels fill: uint8 (side, side, 3).

    As the model was trained; in a black or white frame it sees "letterboxed" and "border".
    """
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    left, top = (side - width) // 2, (side - height) // 2
    margins = ((top, side - height - top), (left, side - width - left), (0, 0))
    return np.pad(np.asarray(image.resize((width, height), Image.Resampling.BOX)), margins, mode="edge")

"""Captions for many pictures, with the model kept busy: the next pictures are decoded while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.pictures import read_picture
from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Stop
from lora_trainer.tagging import blip, deepdanbooru, florence, wd
from lora_trainer.tagging.onnx_model import Notice
from lora_trainer.tagging.taggers import TAGGERS
from lora_trainer.tagging.weights import folder_with
from lora_trainer.tagging.wording import TagOptions


class Tagger(Protocol):
    @property
    def batch_size(self) -> int:
        """How many pictures are captioned at once."""

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The picture (RGB) as the model sees it; may run in several threads at once."""

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        """A caption for each prepared picture, `batch_size` of them at most."""


_LOADERS: Mapping[str, Callable[[Path, TagOptions, Notice], Tagger]] = {
    "wd": wd.load,
    "deepdanbooru": deepdanbooru.load,
    "blip": blip.load,
    "florence-2": florence.load,
}


def load_tagger(name: str, options: TagOptions, models: Path, report: Report) -> Tagger:
    """The tagger of the setting `tagger`, its files downloaded where they are neither in `models` nor cached.

    Reports "download" (name, done, total: bytes) and "warning" (message). Raises BadInput where the files cannot be had
    or are damaged.
    """
    folder = folder_with(name, models, report)
    return _LOADERS[TAGGERS[name].kind](folder, options, lambda message: report("warning", message=message))


def caption_all(
    tagger: Tagger, pictures: Iterable[tuple[int, Path]], stop: Stop | None = None
) -> Iterator[tuple[int, str | Problem]]:
    """Each picture's number with its caption, or with what is wrong with its file; in the order given.

    A stop takes effect between two batches.
    """
    with closing(ahead(partial(_read, tagger), pictures, extra=tagger.batch_size)) as read:
        while not (stop and stop.wanted) and (batch := list(islice(read, tagger.batch_size))):
            pixels = [found for _, found in batch if isinstance(found, np.ndarray)]
            captions = iter(tagger.caption(pixels) if pixels else ())
            for number, found in batch:
                yield number, found if isinstance(found, Problem) else next(captions)


def _read(tagger: Tagger, picture: tuple[int, Path]) -> tuple[int, np.ndarray | Problem]:
    number, path = picture
    try:
        return number, tagger.prepare(read_picture(path))
    except BadInput as error:
        return number, error.problems[0]

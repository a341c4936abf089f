"""Small folders of pictures, made on the spot."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import Config, Subset

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Writes a picture of noise that no other name has, and its caption where one is given."""

    def write(name: str, size: tuple[int, int] = (80, 64), caption: str | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """A config over folders, named or as subsets, of the test's own folder, at 64 pixels."""

    def make(*folders: str | Subset, **settings: Any) -> Config:
        subsets = tuple(entry if isinstance(entry, Subset) else Subset(str(tmp_path / entry)) for entry in folders)
        sizes = {"resolution": (64, 64), "min_bucket": 64, "max_bucket": 128}
        return Config(subsets=subsets, **{**sizes, **settings}).for_family("sd15")

    return make

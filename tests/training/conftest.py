"""A small base, a few pictures with captions, and a config that trains on them in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import Config, Subset
from tests.flux_files import FluxFiles, make_flux
from tests.make_base import make_base

CAPTIONS = ("blob, red, left", "blob, green, right", "blob, blue, left", "blob, grey, right")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "small.safetensors"
    return make_base("sd15", path, small=True, seed=3)


@pytest.fixture(scope="session")
def xl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "small_xl.safetensors"
    return make_base("sdxl", path, small=True, seed=3)


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> FluxFiles:
    return make_flux(tmp_path_factory.mktemp("flux"), seed=3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four 64 x 64 pictures of coloured noise with captions, in a folder named as sd-scripts wants it."""
    folder = tmp_path / "set" / "1_blob"
    folder.mkdir(parents=True)
    for number, caption in enumerate(CAPTIONS):
        colours = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((64, 64)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption, encoding="utf-8")
    return folder


@pytest.fixture
def config_of(base: Path, pictures: Path, tmp_path: Path) -> Callable[..., Config]:
    """The config, with changes: 3 epochs of 2 steps of 2 pictures, float32, saved in full precision."""

    def make(**changes: Any) -> Config:
        config = Config(
            base_model=str(base),
            subsets=(Subset(folder=str(pictures)),),
            resolution=(64, 64),
            buckets=False,
            epochs=3,
            batch_size=2,
            rank=4,
            learning_rate=1e-3,
            mixed_precision="no",
            optimizer="AdamW",
            seed=7,
            save_precision="fp32",
            output_name="blob",
            output_folder=str(tmp_path / "out"),
            preview_every_epochs=0,
            preview_at_start=False,
        )
        return replace(config, **changes)

    return make

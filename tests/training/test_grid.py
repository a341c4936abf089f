"""A finished LoRA at several strengths, against the previews of its own training and against other LoRA files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.stops import Wishes
from lora_trainer.training.grid import SHEET, draw_grid
from lora_trainer.training.loop import train
from tests.training.heard import Heard

ConfigOf = Callable[..., Config]
PROMPTS = ("blob, red", "blob, blue")
PREVIEWS: dict[str, Any] = {"preview_size": (64, 64), "preview_steps": 2, "preview_prompts": PROMPTS, "preview_seed": 5}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.int64)


def grid_of(config: Config, lora: Path, weights: tuple[float, ...], folder: Path) -> list[list[np.ndarray]]:
    """The drawn cells, row by row."""
    assert draw_grid(replace(config, start_lora=str(lora)), weights, folder) == folder / SHEET
    rows = range(len(weights) + 1)
    return [[pixels(folder / f"cell-{row:02d}-{place:02d}.png") for place in range(2)] for row in rows]


TRAINING = {"preview_at_start": True, "preview_every_epochs": 3, "learning_rate": 0.02, "max_steps": 2}
Trained = Callable[..., tuple[Config, Path, Path]]


@pytest.fixture
def trained(config_of: ConfigOf) -> Trained:
    """Trains; returns the config, the LoRA and the folder of the training's own previews."""

    def make(**changes: Any) -> tuple[Config, Path, Path]:
        config = config_of(**{**PREVIEWS, **TRAINING, **changes})
        lora = train(config).lora
        assert lora is not None
        return config, lora, lora.parent / "blob-run" / "previews"

    return make


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "LoRA"},
        {"kind": "LoCon", "conv_rank": 2, "train": "unet"},
        {"kind": "LoKr", "lokr_factor": 4},
        {"kind": "DoRA", "train": "text_encoder"},
    ],
)
def test_the_cells_are_the_previews_of_the_training(trained: Trained, tmp_path: Path, network: dict[str, Any]) -> None:
    config, lora, previews = trained(**network)
    plain = Config(base_model=config.base_model, mixed_precision="no", **PREVIEWS)
    without, whole = grid_of(plain, lora, (1.0,), tmp_path / "grid")
    for place in range(2):
        before = pixels(previews / f"epoch000000-{place:02d}-5.png")
        after = pixels(previews / f"epoch000001-{place:02d}-5.png")
        assert np.abs(before - after).mean() > 1
        assert np.abs(without[place] - before).max() <= 1
        assert np.abs(whole[place] - after).max() <= 1


def test_half_the_weight_is_half_the_lora(trained: Trained, tmp_path: Path) -> None:
    config, lora, _ = trained()
    with safe_open(lora, "pt") as file:
        metadata = file.metadata()
    halved = {name: tensor * (0.5 if name.endswith(".alpha") else 1) for name, tensor in load_file(lora).items()}
    other = tmp_path / "halved.safetensors"
    save_file(halved, other, metadata)
    half, whole = grid_of(config, lora, (0.5, 1.0), tmp_path / "one")[1:]
    (same,) = grid_of(config, other, (1.0,), tmp_path / "other")[1:]
    for place in range(2):
        assert np.abs(half[place] - same[place]).max() <= 1
        assert np.abs(half[place] - whole[place]).max() > 1


class StopAfter:
    """A control that asks for the end once so many cells are drawn."""

    def __init__(self, heard: Heard, cells: int):
        self.heard, self.cells = heard, cells

    def wishes(self) -> Wishes:
        return Wishes(stop=len(self.heard.of("sample")) >= self.cells)

    def wait(self) -> None: ...


def test_a_grid_that_is_stopped_goes_on(trained: Trained, tmp_path: Path) -> None:
    config, lora, _ = trained(max_steps=1)
    config = replace(config, start_lora=str(lora))
    heard, folder = Heard(), tmp_path / "grid"
    assert draw_grid(config, (0.5,), folder, heard, StopAfter(heard, 3)) is None
    assert heard.events[-1][0] == "stopped" and len(list(folder.iterdir())) == 3
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = Heard()
    sheet = draw_grid(config, (0.5,), folder, again)
    assert sheet and again.events[-1][0] == "finished"
    assert {name: (folder / name).stat().st_mtime_ns for name in times} == times
    assert [facts.get("weight") for facts in again.of("sample")] == [0, 0, 0.5, 0.5, None]
    with Image.open(sheet) as picture:
        assert picture.width > 2 * 160 and picture.height > 2 * 160
        colours = picture.convert("RGB").getcolors(1 << 24)
        assert colours and len(colours) > 100  # not an empty one


def test_what_can_not_be_drawn_is_told(config_of: ConfigOf, base: Path, xl_base: Path, tmp_path: Path) -> None:
    config = config_of(**PREVIEWS, max_steps=1)
    lora = train(config).lora
    no_lora, no_base_of_it = replace(config, start_lora=str(base)), replace(config, base_model=str(xl_base))
    for wrong in (no_lora, replace(no_base_of_it, start_lora=str(lora))):
        with pytest.raises(BadInput) as caught:
            draw_grid(wrong, (1.0,), tmp_path / "grid")
        assert [problem.setting for problem in caught.value.problems] == ["start_lora"]
        assert not (tmp_path / "grid" / SHEET).exists()

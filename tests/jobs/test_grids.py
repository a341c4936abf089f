"""Which pictures belong to a grid, and that they are there again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.hosts.host import Drawing
from lora_trainer.jobs.grids import Cell, Grid, GridLora, Grids

LORAS = (GridLora("zdm-000001.safetensors", 1, 70, 5), GridLora("zdm.safetensors", 2, 140, 6))
GRID = Grid(
    name="zdm", created_at=1.5, base_model="base.safetensors", loras=LORAS, weights=(0.7, 1.0), prompts=("zdm", "red"),
    negative_prompt="blurred", steps=9, cfg_scale=6.5, sampler="Euler a", width=64, height=96, seed=42, clip_skip=2,
    job=3,
)  # fmt: skip


def test_each_lora_at_each_weight_by_each_prompt_beside_the_base_alone() -> None:
    names = [cell.file for cell in GRID.cells()]
    assert names == [
        "00.png", "01.png",
        "00-00-00.png", "01-00-00.png", "00-00-01.png", "01-00-01.png",
        "00-01-00.png", "01-01-00.png", "00-01-01.png", "01-01-01.png",
    ]  # fmt: skip


def test_a_cell_says_all_that_the_host_has_to_know() -> None:
    files = [Path("a"), Path("b")]
    base = Drawing("base.safetensors", "red", "blurred", 9, 6.5, "Euler a", 64, 96, 42, clip_skip=2)
    assert GRID.drawing(Cell(1), files) == base
    assert GRID.drawing(Cell(1, 1, 0), files) == replace(base, loras=((Path("b"), 0.7),))
    assert replace(GRID, guidance=3.5).drawing(Cell(1), files) == replace(base, guidance=3.5)


def test_a_grid_and_its_pictures_are_there_again(tmp_path: Path) -> None:
    first, second = Grids(tmp_path).add(GRID), Grids(tmp_path).add(replace(GRID, job=None, lora="zdm.safetensors"))
    assert (first.id, second.id) == (1, 2) and first == replace(GRID, id=1)
    grids = Grids(tmp_path)
    assert grids.all() == [second, first] and grids.get(1) == first
    (grids.folder(1) / "00-01-00.png").write_bytes(b"picture")
    (grids.folder(1) / "stray.png").write_bytes(b"picture")
    assert grids.there(first) == ["00-01-00.png"] and grids.there(second) == []
    grids.remove(2)
    assert grids.all() == [first] and grids.get(2) is None


@pytest.mark.parametrize("told", ["", "{", "[]", "{}", '{"loras": [{}], "weights": [1], "prompts": []}'])
def test_a_damaged_one_is_passed_over(tmp_path: Path, told: str) -> None:
    good, bad = Grids(tmp_path).add(GRID), Grids(tmp_path).add(GRID)
    (Grids(tmp_path).folder(bad.id) / "grid.json").write_text(told, encoding="utf-8")
    (tmp_path / "grids" / "notes").mkdir()
    assert Grids(tmp_path).all() == [good]
    assert Grids(tmp_path).add(GRID).id == 3

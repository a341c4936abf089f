"""Pictures that were left out go back to where they were, with their captions, and nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.dataset.store import Dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "set" / "10_zdm (2)"
    inner.mkdir(parents=True)
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (32, 32), colour).save(inner / f"{name}.png")
        (inner / f"{name}.txt").write_text(colour, encoding="utf-8")
    return inner.parent


def held(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(".")}


def test_it_is_all_there_again(folder: Path) -> None:
    before = held(folder)
    with Dataset.open(folder) as dataset:
        entries = dataset.entries()
        dataset.remove([entry.id for entry in entries])
        assert dataset.entries() == [] and dataset.left_out() == ["10_zdm (2)/a.png", "10_zdm (2)/b.png"]
        assert dataset.put_back(["10_zdm (2)/b.png"]) == []
        assert dataset.entries() == entries[1:] and dataset.left_out() == ["10_zdm (2)/a.png"]
        assert dataset.put_back(dataset.left_out()) == [] and dataset.entries() == entries
    assert held(folder) == before


def test_one_that_was_left_out_twice_goes_back_once(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        dataset.remove([dataset.entries()[0].id])
        Image.new("RGB", (32, 32), "green").save(folder / "10_zdm (2)" / "a.png")
        dataset.refresh()
        dataset.remove([dataset.entries()[0].id])
        twice = dataset.left_out()
        assert len(twice) == 2
        [sentence] = dataset.put_back(twice)
        assert "stays left out" in sentence or "cannot be moved" in sentence
        assert len(dataset.left_out()) == 1
        assert [entry.file for entry in dataset.entries()] == ["a.png", "b.png"]


def test_a_place_that_is_taken_is_left_to_who_has_it(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        dataset.remove([dataset.entries()[0].id])
        (folder / "10_zdm (2)" / "a.txt").write_text("somebody's", encoding="utf-8")
        [sentence] = dataset.put_back(["10_zdm (2)/a.png"])
        assert "10_zdm (2)/a.png" in sentence and dataset.left_out() == ["10_zdm (2)/a.png"]
    assert (folder / "10_zdm (2)" / "a.txt").read_text(encoding="utf-8") == "somebody's"


@pytest.mark.parametrize("file", ["c.png", "../10_zdm (2)/b.png", "10_zdm (2)/a.txt", ""])
def test_only_what_was_left_out_can_come_back(folder: Path, file: str) -> None:
    with Dataset.open(folder) as dataset:
        dataset.remove([dataset.entries()[0].id])
        with pytest.raises(BadInput):
            dataset.put_back(["10_zdm (2)/a.png", file])
        assert dataset.left_out() == ["10_zdm (2)/a.png"]

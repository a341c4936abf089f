"""A kill at any moment: the folder as it is on the disk at every step of an operation is opened as a set."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.dataset.store import Dataset, writing
from lora_trainer.packages import ROOT
from tests.dataset.store.conftest import copied_at_each_step, step

Draw = Callable[..., Path]


class Disk:
    """Copies of a set's folder as a kill would leave it: taken before each file operation and each SQL statement."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self._copies = folder, copies
        self._made: list[Path] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        with copied_at_each_step(self.folder, self._copies / str(len(self._made))) as made:
            yield
        self._made += made

    def killed(self) -> Iterator[Path]:
        assert self._made
        yield from self._made


@pytest.fixture
def disk(draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    draw("zdm/10_zdm/a.jpg", (80, 64), "old a")
    draw("zdm/10_zdm/b.png", (80, 64), "old b")
    draw("zdm/10_zdm/c.png", (80, 64))

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real_connect(*arguments, **options)
        connection.set_trace_callback(step)
        return connection

    real_connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    monkeypatch.setattr(writing, "_WRITERS", 1)  # nothing else moves while a copy is taken
    monkeypatch.setattr(os, "getpid", itertools.count(1).__next__)  # another process does not write over what is left
    return Disk(tmp_path / "zdm", tmp_path / "copies")


OLD = {"a": "old a", "b": "old b", "c": ""}
NEW = {"a": "new a", "b": "new b\nand more", "c": "new c"}


def captions(dataset: Dataset) -> dict[str, str]:
    return {Path(entry.file).stem: entry.caption for entry in dataset.entries()}


def files(folder: Path) -> dict[str, str]:
    """Caption files, as another program sees them; "" where there is none."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("10_zdm/*.txt")}
    return {"a": "", "b": "", "c": ""} | texts


def change(dataset: Dataset) -> int:
    return dataset.change_captions("all", {entry.id: NEW[Path(entry.file).stem] for entry in dataset.entries()})


def leftovers(folder: Path) -> list[str]:
    known = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
    hidden = [path.name for path in folder.rglob(".*") if path.name != ".lora_trainer"]
    return hidden + [path.name for path in (folder / ".lora_trainer").iterdir() if path.name not in known]


def test_making_the_index(disk: Disk) -> None:
    with disk.watched(), Dataset.open(disk.folder):
        pass
    for folder in disk.killed():
        with Dataset.open(folder) as dataset:
            assert captions(dataset) == OLD
            assert dataset.history() == dataset.notices == []


def test_a_change_of_captions_is_made_whole_or_not_at_all(disk: Disk) -> None:
    with Dataset.open(disk.folder) as dataset, disk.watched():
        change(dataset)
    made = []
    for folder in disk.killed():
        with Dataset.open(folder) as dataset:
            made.append(captions(dataset) == NEW)
            assert captions(dataset) == files(folder) == (NEW if made[-1] else OLD)
            assert [step.what for step in dataset.history()] == (["all"] if made[-1] else [])
            assert not leftovers(folder)
    assert made == sorted(made) and not made[0]  # once made, it stays


def test_captions_reach_their_files(disk: Disk) -> None:
    with Dataset.open(disk.folder) as dataset:
        change(dataset)
        with disk.watched():
            dataset.flush()
    halfway = 0
    for folder in disk.killed():
        halfway += files(folder) not in (OLD, NEW)
        with Dataset.open(folder) as dataset:
            assert captions(dataset) == files(folder) == NEW
            assert not dataset.notices
            dataset.undo()
        assert files(folder) == OLD
        assert not (folder / "10_zdm" / "c.txt").exists()
        assert not leftovers(folder)
    assert halfway


def test_undo_reaches_the_files(disk: Disk) -> None:
    with Dataset.open(disk.folder) as dataset:
        change(dataset)
        dataset.flush()
        with disk.watched():
            dataset.undo()
            dataset.flush()
    undone = []
    for folder in disk.killed():
        with Dataset.open(folder) as dataset:
            undone.append(dataset.history()[0].undone)
            assert captions(dataset) == files(folder) == (OLD if undone[-1] else NEW)
    assert undone == sorted(undone) and undone[-1]


def blue(path: Path) -> None:
    Image.new("RGB", (64, 64), "blue").save(path)


@pytest.mark.parametrize("name", ["a.jpg", "b.png"])
def test_a_picture_is_the_old_one_or_the_whole_new_one(disk: Disk, name: str) -> None:
    before = (disk.folder / "10_zdm" / name).read_bytes()
    with Dataset.open(disk.folder) as dataset:
        entry = next(entry for entry in dataset.entries() if entry.file == name)
        with disk.watched():
            dataset.replace_picture(entry, blue, "blue")
    replaced = []
    for folder in disk.killed():
        with Dataset.open(folder) as dataset:
            assert not dataset.notices
            entry = next(now for now in dataset.entries() if now.id == entry.id)
            replaced.append(entry.cut == "blue")
            assert len(dataset.entries()) == 3 and captions(dataset) == OLD
            assert len(list((folder / "10_zdm").glob(f"{name[0]}.[jp]*"))) == 1
            with Image.open(dataset.picture(entry)) as picture:
                assert picture.size == entry.size == ((64, 64) if replaced[-1] else (80, 64))
            assert dataset.original(entry).read_bytes() == before
            assert not leftovers(folder)
            dataset.replace_picture(entry, blue, "blue")
        assert [path.name for path in (folder / "originals").rglob("*")] == [name]
    assert replaced == sorted(replaced) and replaced[-1] and not replaced[0]


def test_a_picture_left_out_takes_its_caption_along(disk: Disk) -> None:
    with Dataset.open(disk.folder) as dataset:
        ids = [entry.id for entry in dataset.entries() if entry.file == "a.jpg"]
        with disk.watched():
            dataset.remove(ids)
    removed = []
    for folder in disk.killed():
        with Dataset.open(folder) as dataset:
            removed.append("a" not in captions(dataset))
            home, other = ("left_out/10_zdm", "10_zdm") if removed[-1] else ("10_zdm", "left_out/10_zdm")
            assert all((folder / home / f"a.{ending}").is_file() for ending in ("jpg", "txt"))
            assert not any((folder / other / f"a.{ending}").exists() for ending in ("jpg", "txt"))
            assert not dataset.history()
    assert removed == sorted(removed) and removed[-1] and not removed[0]


def test_a_kill_while_a_kill_is_mended(disk: Disk, tmp_path: Path) -> None:
    with Dataset.open(disk.folder) as dataset:
        entry = dataset.entries()[0]
        change(dataset)
        with disk.watched():
            dataset.replace_picture(entry, blue, "blue")
    again = Disk(tmp_path / "again", tmp_path / "copies of it")
    middle = next(folder for folder in disk.killed() if (folder / "originals").exists() and noted(folder))
    shutil.copytree(middle, again.folder)
    with again.watched(), Dataset.open(again.folder):
        pass
    for folder in again.killed():
        with Dataset.open(folder) as dataset:
            assert captions(dataset) == files(folder) == NEW
            assert [(entry.file, entry.cut) for entry in dataset.entries()][0] == ("a.png", "blue")
            assert sorted(path.name for path in (folder / "10_zdm").glob("a.*")) == ["a.png", "a.txt"]


def noted(folder: Path) -> bool:
    """Whether the index says that a file is on its way."""
    connection = sqlite3.connect(folder / ".lora_trainer" / "index.sqlite")
    try:
        return bool(connection.execute("SELECT count(*) FROM move").fetchone()[0])
    finally:
        connection.close()


def test_a_process_is_killed(draw: Draw, tmp_path: Path) -> None:
    """Once for real, between the tenth and the eleventh caption file."""
    for number in range(20):
        draw(f"zdm/10_zdm/{number}.png", (16, 16), "old")
    code = (
        "import os, sys; from pathlib import Path; from lora_trainer.dataset.store import Dataset, writing\n"
        "real, done = writing._written, []\n"
        "def written(row, file):\n"
        "    done.append(file)\n"
        "    if len(done) > 10: print('here', flush=True); sys.stdin.read()\n"
        "    return real(row, file)\n"
        "writing._written, writing._WRITERS = written, 1\n"
        "dataset = Dataset.open(Path(sys.argv[1]))\n"
        "dataset.change_captions('all', {entry.id: 'new' for entry in dataset.entries()})\n"
        "dataset.flush()\n"
    )
    folder = tmp_path / "zdm"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline().strip() == b"here"
    process.kill()
    process.communicate()
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("10_zdm/*.txt")]
    assert texts.count("new") == texts.count("old") == 10
    with Dataset.open(folder) as dataset:
        assert {entry.caption for entry in dataset.entries()} == {"new"}
        assert {path.read_text(encoding="utf-8") for path in folder.glob("10_zdm/*.txt")} == {"new"}
        dataset.undo()
    assert {path.read_text(encoding="utf-8") for path in folder.glob("10_zdm/*.txt")} == {"old"}

"""Captions changed here and by hand, undone and redone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from PIL import Image

from lora_trainer.dataset.store import Dataset, writing
from lora_trainer.dataset.store.history import Step

Draw = Callable[..., Path]


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    for name in "abc":
        draw(f"zdm/10_zdm/{name}.png", (16, 16), f"old {name}")
    return tmp_path / "zdm"


def captions(dataset: Dataset) -> list[str]:
    return [entry.caption for entry in dataset.entries()]


def files(folder: Path) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((folder / "10_zdm").glob("*.txt"))]


def change(dataset: Dataset, what: str, texts: list[str], step: int | None = None) -> int:
    return dataset.change_captions(what, {entry.id: t for entry, t in zip(dataset.entries(), texts)}, step)


def by_hand(path: Path, text: str) -> None:
    before = path.stat().st_mtime_ns
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))  # so that no clock is too coarse to tell


def seen(step: Step | None) -> tuple[str, int, bool, tuple[str, ...]] | None:
    return (step.what, step.count, step.undone, step.left) if step else None


def test_a_change_reaches_the_index_at_once_and_the_files_with_flush(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    with Dataset.open(folder) as dataset:
        assert change(dataset, "all", ["new a", "old b", "new c\r\nnote"])
        assert captions(dataset) == ["new a", "old b", "new c\r\nnote"]
        assert files(folder) == ["old a", "old b", "old c"]
        assert dataset.flush(lambda done, total: told.append((done, total))) == []
        assert told == [(2, 2)]
        assert (folder / "10_zdm" / "c.txt").read_bytes() == b"new c\r\nnote"
        assert [(step.what, step.count) for step in dataset.history()] == [("all", 2)]


def test_what_changes_nothing_is_no_step(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        assert change(dataset, "same", ["old a", "old b", "old c"]) == 0
        assert dataset.change_captions("unknown", {4711: "x"}) == 0
        assert dataset.history() == [] and dataset.undo() is None and dataset.redo() is None


def test_undo_and_redo_are_kept_across_a_restart(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        change(dataset, "first", ["1", "1", "1"])
        change(dataset, "second", ["2", "1", "2"])
        assert seen(dataset.undo()) == ("second", 2, True, ())
    assert files(folder) == ["1", "1", "1"]
    with Dataset.open(folder) as dataset:
        assert seen(dataset.undo()) == ("first", 3, True, ())
        assert dataset.undo() is None
    assert files(folder) == ["old a", "old b", "old c"]
    with Dataset.open(folder) as dataset:
        assert seen(dataset.redo()) == ("first", 3, False, ())
        assert seen(dataset.redo()) == ("second", 2, False, ())
        assert dataset.redo() is None
        assert captions(dataset) == ["2", "1", "2"]


def test_a_change_ends_what_could_be_redone(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        change(dataset, "first", ["1", "1", "1"])
        dataset.undo()
        change(dataset, "other", ["x", "old b", "old c"])
        assert dataset.redo() is None
        assert [step.what for step in dataset.history()] == ["other"]


def test_a_step_may_grow(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        step = change(dataset, "tagged", ["t", "old b", "old c"])
        assert change(dataset, "tagged", ["t", "t", "old c"], step) == step
        assert change(dataset, "tagged", ["tt", "t", "old c"], step) == step
        assert [(step.what, step.count) for step in dataset.history()] == [("tagged", 2)]
        dataset.undo()
        assert captions(dataset) == ["old a", "old b", "old c"]
        assert change(dataset, "tagged", ["old a", "old b", "t"], step) != step


def test_no_caption_file_and_an_empty_one_are_two_things(folder: Path) -> None:
    """A training gives the class tokens to the first and nothing to the second."""
    (folder / "10_zdm" / "a.txt").unlink()
    with Dataset.open(folder) as dataset:
        assert captions(dataset) == ["", "old b", "old c"]
        change(dataset, "tags", ["tag", "", "old c"])
        dataset.flush()
        assert files(folder) == ["tag", "", "old c"]
        dataset.undo()
    assert files(folder) == ["old b", "old c"]
    with Dataset.open(folder) as dataset:
        assert change(dataset, "nothing", ["", "old b", "old c"]) == 0
        dataset.redo()
    assert files(folder) == ["tag", "", "old c"]


def test_an_edit_by_hand_is_a_step_of_its_own(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        by_hand(folder / "10_zdm" / "b.txt", "mine")
        (folder / "10_zdm" / "c.txt").unlink()
        assert dataset.refresh() == ["Captions edited outside: 10_zdm/b.png, 10_zdm/c.png."]
        assert captions(dataset) == ["old a", "mine", ""]
        assert seen(dataset.history()[0]) == ("edited outside", 2, False, ())
        dataset.undo()
    assert files(folder) == ["old a", "old b", "old c"]
    with Dataset.open(folder) as dataset:
        dataset.redo()
    assert files(folder) == ["old a", "mine"]


def test_an_edit_by_hand_leaves_what_can_be_redone(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        change(dataset, "first", ["1", "1", "1"])
        dataset.undo()
        dataset.flush()
        by_hand(folder / "10_zdm" / "b.txt", "mine")
        dataset.refresh()
        assert seen(dataset.redo()) == ("first", 3, False, ("10_zdm/b.png",))
        assert captions(dataset) == ["1", "mine", "1"]


def test_a_touched_file_is_no_edit(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        by_hand(folder / "10_zdm" / "b.txt", "old b")
        assert dataset.refresh() == dataset.history() == []


def test_an_edit_by_hand_is_never_overwritten(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        change(dataset, "all", ["new a", "new b", "new c"])
        by_hand(folder / "10_zdm" / "b.txt", "mine")
        (said,) = dataset.flush()
        assert said.endswith("undo brings yours back: 10_zdm/b.png.")
        assert files(folder) == captions(dataset) == ["new a", "mine", "new c"]
        assert seen(dataset.undo()) == ("edited outside", 1, True, ())
        dataset.flush()
        assert files(folder) == ["new a", "new b", "new c"]


def test_an_edit_by_hand_in_the_last_moment_is_not_overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at all files and the writing of one."""

    def edited_first(path: Path) -> str:
        if path.name == "b.txt" and path.read_text(encoding="utf-8") != "mine":
            by_hand(path, "mine")
        return real(path)

    real = writing.stamp_at
    with Dataset.open(folder) as dataset:
        change(dataset, "all", ["new a", "new b", "new c"])
        monkeypatch.setattr(writing, "stamp_at", edited_first)
        dataset.flush()
        assert files(folder) == ["new a", "mine", "new c"]
        dataset.flush()
        assert captions(dataset) == ["new a", "mine", "new c"]


def test_undo_leaves_what_has_been_changed_since(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        step = change(dataset, "tagged", ["t", "old b", "old c"])
        change(dataset, "by hand", ["mine", "old b", "old c"])
        change(dataset, "tagged", ["mine", "t", "t"], step)
        assert seen(dataset.undo()) == ("by hand", 1, True, ())
        dataset.redo()
        by_hand(folder / "10_zdm" / "c.txt", "outside")
        dataset.refresh()
        change(dataset, "tagged", ["mine", "tt", "outside"], step)
        assert [step.what for step in dataset.history()] == ["tagged", "by hand", "edited outside"]
        change(dataset, "last", ["mine", "tt", "last"], dataset.history()[1].id)
        assert seen(dataset.undo()) == ("edited outside", 1, True, ("10_zdm/c.png",))
        assert captions(dataset) == ["mine", "tt", "last"]


def test_what_the_disk_refuses_stays_pending(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with Dataset.open(folder) as dataset:
        change(dataset, "all", ["new a", "new b", "new c"])
        monkeypatch.setattr(writing, "written_whole", full)
        (said,) = dataset.flush()
        assert "(No space left on device): 10_zdm/a.png, 10_zdm/b.png, 10_zdm/c.png." in said
        assert captions(dataset) == ["new a", "new b", "new c"] and files(folder) == ["old a", "old b", "old c"]
        monkeypatch.undo()
    assert files(folder) == ["new a", "new b", "new c"]


NAMES = "abc"
Changes = dict[str, tuple["str | None", "str | None"]]  # by name: the text before, the text after; None: no file
some_texts = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "x", "y", "z"]), min_size=1)


class Captions(RuleBasedStateMachine):
    """Any order of changes here and by hand, undo, redo, flush and restart, beside lists that do the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "1_a").mkdir()
        for name in NAMES:
            Image.new("L", (16, 16)).save(self.folder / "1_a" / f"{name}.png")
        self.dataset = Dataset.open(self.folder)
        self.ids = {Path(entry.file).stem: entry.id for entry in self.dataset.entries()}
        self.now: dict[str, str | None] = dict.fromkeys(NAMES)
        self.on_disk = dict(self.now)
        self.done: list[Changes] = []
        self.undone: list[Changes] = []
        self.clock = 10**18

    def teardown(self) -> None:
        self.dataset.close()
        shutil.rmtree(self.folder)

    def _file(self, name: str) -> Path:
        return self.folder / "1_a" / f"{name}.txt"

    @rule(texts=some_texts)
    def change(self, texts: dict[str, str]) -> None:
        self.dataset.change_captions("change", {self.ids[name]: text for name, text in texts.items()})
        step: Changes = {n: (self.now[n], text) for n, text in texts.items() if text != (self.now[n] or "")}
        if step:
            self.now |= {name: new for name, (_, new) in step.items()}
            self.done.append(step)
            self.undone.clear()

    @rule(name=st.sampled_from(NAMES), text=st.sampled_from([None, "", "x", "mine"]))
    def by_hand(self, name: str, text: str | None) -> None:
        self.clock += 10**9
        if text is None:
            self._file(name).unlink(missing_ok=True)
        else:
            self._file(name).write_text(text, encoding="utf-8")
            os.utime(self._file(name), ns=(self.clock, self.clock))
        self.dataset.refresh()
        if text is not None or self.on_disk[name] is not None:
            self.on_disk[name] = text
            if self.now[name] != text:
                self.done.append({name: (self.now[name], text)})
                self.now[name] = text

    @precondition(lambda self: self.done)
    @rule()
    def undo(self) -> None:
        step = self.done.pop()
        self.undone.append(step)
        self.now |= {name: old for name, (old, new) in step.items() if self.now[name] == new}
        assert self.dataset.undo() is not None

    @precondition(lambda self: self.undone)
    @rule()
    def redo(self) -> None:
        step = self.undone.pop()
        self.done.append(step)
        self.now |= {name: new for name, (old, new) in step.items() if self.now[name] == old}
        assert self.dataset.redo() is not None

    @rule()
    def flush(self) -> None:
        assert self.dataset.flush() == []
        self.on_disk = dict(self.now)

    @rule()
    def restart(self) -> None:
        self.dataset.close()
        self.dataset = Dataset.open(self.folder)
        assert self.dataset.notices == []
        self.on_disk = dict(self.now)

    @invariant()
    def alike(self) -> None:
        entries = {Path(entry.file).stem: entry.caption for entry in self.dataset.entries()}
        assert entries == {name: text or "" for name, text in self.now.items()}
        for name, text in self.on_disk.items():
            assert (self._file(name).read_text(encoding="utf-8") if self._file(name).exists() else None) == text
        assert len(self.dataset.history()) == len(self.done) + len(self.undone)


Captions.TestCase.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
TestCaptions = Captions.TestCase

"""A set of pictures and captions: its list, its captions with undo, and its files.

    zdm/10_zdm/pic.png + pic.txt    what is trained on, in one or several such folders
    zdm/originals/pic.jpg           every picture as it came
    zdm/left_out/10_zdm/...         what is not to be trained on
    zdm/.lora_trainer/              the index

The folder is the truth: captions are in their files, and what a person does there by hand counts. Changes made here are
kept by the index first, and reach the caption files with `flush`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from types import TracebackType

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.captions import LONGEST_CAPTION, trained_line
from lora_trainer.dataset.folders import ORIGINALS
from lora_trainer.dataset.listing import natural_name
from lora_trainer.dataset.store import history, index, moving, returning
from lora_trainer.dataset.store.history import Step
from lora_trainer.dataset.store.importing import finish_imports
from lora_trainer.dataset.store.index import Damaged, Index, Row
from lora_trainer.dataset.store.refreshing import refresh
from lora_trainer.dataset.store.writing import Progress, caption_file, write_pending

_ENTRY = "id, folder, file, original, width, height, coalesce(caption, ''), cut"
_REBUILT = "The index was damaged and is built anew from the folder; earlier changes of captions can't be undone"


@dataclass(frozen=True)
class Entry:
    """A picture of the set; 0 x 0 pixels where it cannot be read. `caption` is its file's whole text, "" for none."""

    id: int
    folder: str  # "10_zdm"; "" where the pictures lie in the set's folder itself
    file: str
    original: str  # its name in originals/, "" where there is none
    width: int
    height: int
    caption: str
    cut: str  # how the picture was made from the original, "" where it was not cut

    @property
    def size(self) -> Size:
        return self.width, self.height

    @property
    def line(self) -> str:
        """The line of the caption that is trained."""
        return trained_line(self.caption)


class Dataset:
    """An open set; `notices` say in whole sentences what opening it found. Threads and processes may share a set."""

    def __init__(self, path: Path, opened: Index, caption_extension: str) -> None:
        self.path = path
        self.notices: list[str] = []
        self._index = opened
        self._caption_extension = caption_extension

    @classmethod
    def create(cls, folder: Path, caption_extension: str = ".txt") -> Dataset:
        """Makes the folder and opens it, or opens the set that it is. Raises BadInput."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"cannot be made ({error.strerror})"
            raise BadInput(Problem("dataset", str(folder), problem, "Name another place.")) from error
        return cls.open(folder, caption_extension)

    @classmethod
    def open(cls, folder: Path, caption_extension: str = ".txt") -> Dataset:
        """Opens a folder of pictures as a set, and finishes what a kill has interrupted.

        A picture's first caption file is named with `caption_extension`, which also counts first where it has several.
        Raises BadInput where the folder is missing or cannot be read and written.
        """
        if not folder.is_dir():
            problem = "is no folder" if folder.exists() else "there is no such folder"
            raise BadInput(Problem("dataset", str(folder), problem, "Check its name."))
        try:
            return cls._open(folder, caption_extension)
        except Damaged:
            aside = index.put_aside_index(folder)
            dataset = cls._open(folder, caption_extension)
        dataset.notices.insert(0, f"{_REBUILT}. The old index is {index.HOME}/{aside}.")
        return dataset

    @classmethod
    def _open(cls, folder: Path, caption_extension: str) -> Dataset:
        dataset = cls(folder, Index(folder), caption_extension)
        try:
            with dataset._index.changing() as db:
                dataset.notices += moving.finish(db, folder).values()
                dataset.notices += finish_imports(folder)
            dataset.notices += dataset.flush()
        except BaseException:
            dataset._index.close()
            raise
        return dataset

    def close(self) -> None:
        """Writes what is pending, with what there is to say of it in `notices`.

        Without a refresh: a file that somebody has changed is left as it is, and noticed when the set is next opened.
        """
        try:
            self.notices += write_pending(self._index, self.path, self._caption_extension)
        finally:
            self._index.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def entries(self) -> list[Entry]:
        """The pictures in natural order of their folders and names (2 before 10)."""
        with self._index.reading() as db:
            rows = db.execute(f"SELECT {_ENTRY} FROM entry WHERE NOT gone").fetchall()
        return sorted(starmap(Entry, rows), key=lambda entry: (natural_name(entry.folder), natural_name(entry.file)))

    @property
    def version(self) -> tuple[int, int]:
        """While it is the same, so are `entries`."""
        return self._index.version()

    def captions(self) -> dict[int, str]:
        """The whole text of every caption by its entry, in no order: `entries` without all the rest."""
        with self._index.reading() as db:
            return dict(db.execute("SELECT id, ifnull(caption, '') FROM entry WHERE NOT gone"))

    def picture(self, entry: Entry) -> Path:
        return self.path / entry.folder / entry.file

    def original(self, entry: Entry) -> Path:
        """The picture as it came: the picture itself where there is no other."""
        return self.path / ORIGINALS / entry.original if entry.original else self.picture(entry)

    def caption_file(self, entry: Entry) -> Path:
        """Where the entry's caption is, or is going to be."""
        with self._index.reading() as db:
            return caption_file(self.path, _row(db, entry.id), self._caption_extension)

    def refresh(self) -> list[str]:
        """Takes over what a person has changed in the folder; returns it in sentences. Raises BadInput."""
        with self._index.changing() as db:
            return refresh(db, self.path, self._caption_extension)

    def change_captions(self, what: str, texts: Mapping[int, str], step: int | None = None) -> int:
        """Gives entries (by id) other captions, as one undoable step, or as more of the step given; returns the step.

        The texts are whole ones (`Entry.caption`). Entries that have them already, and those that are gone, are passed
        over; 0 where nothing is left to change. Raises BadInput, with nothing changed, for a text that no caption file
        could hold.
        """
        _check(texts.values())
        with self._index.changing() as db:
            current = index.captions(db, texts)
            changes = [(number, old, texts[number]) for number, old in current.items() if texts[number] != (old or "")]
            if not changes:
                return step or 0
            history.forget_undone(db)
            db.executemany(
                "UPDATE entry SET caption = ?, pending = 1 WHERE id = ?", [(new, number) for number, _, new in changes]
            )
            return history.record(db, what, changes, step)

    def undo(self) -> Step | None:
        """Takes the last step back, and returns it; None where there is none."""
        with self._index.changing() as db:
            return history.undo(db)

    def redo(self) -> Step | None:
        """Makes the step again that was undone last, and returns it; None where there is none."""
        with self._index.changing() as db:
            return history.redo(db)

    def history(self) -> list[Step]:
        """All steps, oldest first, those that can be redone among them."""
        with self._index.reading() as db:
            return history.steps(db)

    def flush(self, progress: Progress | None = None) -> list[str]:
        """Refreshes, then writes the captions that their files do not hold yet; returns sentences.

        A file that somebody has changed is not overwritten: its text counts. What the disk refuses stays pending.
        `progress` is told how many files are done, of how many. Raises BadInput where the folder cannot be read.
        """
        with self._index.changing() as db:
            sentences = refresh(db, self.path, self._caption_extension)
        return sentences + write_pending(self._index, self.path, self._caption_extension, progress)

    def replace_picture(self, entry: Entry, write: Callable[[Path], None], cut: str) -> Entry:
        """Puts the PNG that `write` writes into the picture's place; returns the entry as it is then.

        `cut` says how it was made. The picture is kept in originals/ unless its original is there already. Killed at
        any moment, the set has the old picture or the whole new one. `write` is given a path in .png and runs while the
        index is held: it should only write. Raises BadInput where the picture is gone or a name stands in the way.
        """
        with self._index.changing() as db:
            old = _row(db, entry.id)
            row = moving.note_replacing(db, self.path, old, write)._replace(cut=cut)
            index.change(db, [row])
        with self._index.changing() as db:
            refused = moving.finish(db, self.path).get(old.id)
            if refused:
                index.change(db, [old._replace(original=row.original)])
        if refused:
            raise BadInput(Problem("dataset", old.name, "cannot be replaced", refused))
        known = {name: getattr(row, name) for name in ("folder", "file", "original", "width", "height", "cut")}
        return replace(entry, **known)

    def remove(self, ids: Iterable[int]) -> list[str]:
        """Leaves pictures out: moves them with their captions to left_out/; returns sentences. Originals stay."""
        sentences = self.flush()
        with self._index.changing() as db:
            for number in ids:
                for row in index.rows(db, "id = ? AND NOT gone", (number,)):
                    moving.note_leaving(db, self.path, row)
        with self._index.changing() as db:
            refused = moving.finish(db, self.path)
            refresh(db, self.path, self._caption_extension)
        return [*sentences, *refused.values()]

    def left_out(self) -> list[str]:
        """The pictures that were left out, as `10_zdm/pic.png` below left_out/, in natural order."""
        return returning.left_out(self.path)

    def put_back(self, files: Iterable[str]) -> list[str]:
        """Moves pictures of `left_out` with their captions to where they were; returns sentences. Raises BadInput."""
        with self._index.changing() as db:
            sentences = returning.note_returning(db, self.path, files)
        with self._index.changing() as db:
            refused = moving.finish(db, self.path)
            refresh(db, self.path, self._caption_extension)
        return [*sentences, *refused.values()]


def _row(db: sqlite3.Connection, number: int) -> Row:
    for row in index.rows(db, "id = ? AND NOT gone", (number,)):
        return row
    raise BadInput(Problem("dataset", None, "the picture is not in the set any more", "Refresh the list."))


def _check(texts: Iterable[str]) -> None:
    """Raises BadInput where a caption could not be read again from its file."""
    for text in texts:
        try:
            fault = "is too long" if len(text.encode()) > LONGEST_CAPTION else ""
        except UnicodeEncodeError:
            fault = "has half a letter in it, which no file can hold"
        if "\0" in text:
            fault = "has a NUL in it, which is no letter"
        if fault:
            raise BadInput(Problem("caption", text, fault, "Nothing was changed. Mend it, and try again."))

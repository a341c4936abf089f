"""The set's index in SQLite: a row for each picture, every change of its caption, and files that are on their way."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from lora_trainer.config import BadInput, Problem
from lora_trainer.databases import put_aside, told

HOME = ".lora_trainer"  # in the set's folder: what is no picture and no caption
_NAME = "index.sqlite"
_VERSION = 1
_PATIENCE = 60  # seconds to wait for another process, which holds the index for a second or two at most
_PAGE = 1 << 14  # bytes: several captions fit, where a page of 4 KiB holds one long one and its change not at all
# 160 MB, many changes of 10,000 captions: then SQLite works its journal in, if nobody has asked for it before.
_JOURNAL_PAGES = 10_000
_PARAMETERS = 500  # in one statement: old SQLites take up to 999
_SCHEMA = """
CREATE TABLE entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT, folder TEXT NOT NULL, file TEXT NOT NULL, stamp TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, original TEXT NOT NULL, cut TEXT NOT NULL,
    caption TEXT, caption_file TEXT NOT NULL, caption_stamp TEXT NOT NULL,
    pending INTEGER NOT NULL, gone INTEGER NOT NULL
);
CREATE INDEX pending ON entry (id) WHERE pending;
CREATE TABLE step (
    id INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL, at REAL NOT NULL,
    undone INTEGER NOT NULL, turn INTEGER NOT NULL
);
CREATE TABLE change (
    step INTEGER NOT NULL, entry INTEGER NOT NULL, old TEXT, new TEXT, UNIQUE (step, entry)
);
CREATE TABLE move (
    id INTEGER PRIMARY KEY, entry INTEGER NOT NULL,
    source TEXT NOT NULL, target TEXT NOT NULL, old TEXT NOT NULL, old_stamp TEXT NOT NULL
);
"""


class Row(NamedTuple):
    """A picture as the index knows it; `gone` ones are kept, should they come back.

    A stamp says of a file whether it is still what it was (see `stamp_of`). `caption` is None where there is no caption
    file, whose name and stamp are then "". While `pending`, the file does not hold the caption yet.
    """

    id: int
    folder: str
    file: str
    stamp: str
    width: int
    height: int
    original: str
    cut: str
    caption: str | None
    caption_file: str
    caption_stamp: str
    pending: int
    gone: int

    @property
    def name(self) -> str:
        """As a person is told it: `10_zdm/pic.png`."""
        return f"{self.folder}/{self.file}".lstrip("/")


_COLUMNS = ", ".join(Row._fields)
_VALUES = ", ".join(f":{name}" for name in Row._fields)


class Damaged(BadInput):
    """The index cannot be read."""


def stamp_of(status: os.stat_result) -> str:
    """Bytes, and nanoseconds of the last change: while both stay, so does the file."""
    return f"{status.st_size} {status.st_mtime_ns}"


def stamp_at(path: Path) -> str:
    """The stamp of the file that lies there, "" where none does."""
    try:
        return stamp_of(path.stat())
    except FileNotFoundError:
        return ""


# By the set's folder. SQLite's own waiting looks now and then, and can miss every gap between two changes of another
# thread; a lock is had as soon as it is free.
_turns: WeakValueDictionary[str, threading.RLock] = WeakValueDictionary()


class Index:
    """The connection to a set's index. Threads share it, one at a time; other processes may have their own."""

    def __init__(self, folder: Path) -> None:
        """Raises BadInput where the folder cannot be written, Damaged where the index is not whole."""
        self._set = folder
        self._lock = threading.RLock()
        self._turn = _turns.setdefault(os.path.realpath(folder), threading.RLock())
        try:
            (folder / HOME).mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        with self._told():
            self._connection = sqlite3.connect(
                folder / HOME / _NAME, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change of the index, kept whole or not at all, which no other process' comes between.

        Files of the set are moved and written within such a block too, so that two processes never do it at once.
        """
        with self._turn, self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:
                yield self._connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            yield self._connection

    def version(self) -> tuple[int, int]:
        """Another one after every change, whether this connection made it or another one did."""
        with self.reading() as db:
            return db.execute("PRAGMA data_version").fetchone()[0], db.total_changes

    def tidy(self) -> None:
        """Works the journal in, as far as no other process reads it, so that no edit has to."""
        with self._lock, self._told():
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self._told():
            self._connection.execute(f"PRAGMA page_size = {_PAGE}")  # heeded while there is no index yet
            # Readers go on while another process writes. Where a disk cannot have it (some shared folders), the default
            # serves as well; another process that is just setting it makes it "locked".
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_PAGES}")
            faults = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if faults != "ok":
            raise self._damaged()
        with self.changing() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                problem = f"its index ({HOME}/{_NAME}) is from a later version of this program"
                raise BadInput(Problem("dataset", str(self._set), problem, "Update the program."))
            if version < _VERSION:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")

    def _told(self) -> AbstractContextManager[None]:
        """Whatever SQLite finds wrong with the file or the disk becomes a sentence."""
        return told(self._unusable, self._damaged)

    def _unusable(self, reason: str) -> BadInput:
        problem = f"its index ({HOME}/{_NAME}) cannot be read and written: {reason}"
        remedy = "Check the rights to the folder and the space on its disk, or copy the set to another disk."
        return BadInput(Problem("dataset", str(self._set), problem, remedy))

    def _damaged(self) -> Damaged:
        problem, remedy = f"its index ({HOME}/{_NAME}) is damaged", "Open the set again: it is built anew."
        return Damaged(Problem("dataset", str(self._set), problem, remedy))


def put_aside_index(folder: Path) -> str:
    """Renames a damaged index, so that an empty one takes its place; returns the name that it has from then on.

    Raises BadInput where the disk refuses, as Windows does while another program has it open.
    """
    try:
        return put_aside(folder / HOME / _NAME)
    except OSError as error:
        problem = f"its index ({HOME}/{_NAME}) is damaged, and cannot be put aside ({error.strerror})"
        raise BadInput(Problem("dataset", str(folder), problem, "Close other programs that use the set.")) from error


def rows(db: sqlite3.Connection, where: str = "NOT gone", values: Sequence[object] = ()) -> list[Row]:
    return [Row(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM entry WHERE {where}", values)]


def captions(db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, str | None]:
    """The captions of those that are in the set."""
    wanted = list(ids)
    found: dict[int, str | None] = {}
    for start in range(0, len(wanted), _PARAMETERS):
        some = wanted[start : start + _PARAMETERS]
        marks = ", ".join("?" * len(some))
        found.update(db.execute(f"SELECT id, caption FROM entry WHERE id IN ({marks}) AND NOT gone", some).fetchall())
    return found


def add(db: sqlite3.Connection, added: Iterable[Row]) -> None:
    """Their `id` is passed over: the index numbers them."""
    db.executemany(f"INSERT INTO entry VALUES ({_VALUES})", [{**row._asdict(), "id": None} for row in added])


def change(db: sqlite3.Connection, changed: Iterable[Row]) -> None:
    db.executemany(f"UPDATE entry SET ({_COLUMNS}) = ({_VALUES}) WHERE id = :id", [row._asdict() for row in changed])

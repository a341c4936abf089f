"""The queue's table: what a store of jobs can do, and the one in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any, Protocol

from lora_trainer.databases import put_aside, told
from lora_trainer.jobs.estimates import Measurement
from lora_trainer.jobs.job import ACTIVE, STATUSES, Job, NoSuchJob
from lora_trainer.jobs.migrations import MIGRATIONS, migrate, version_of
from lora_trainer.locks import Lock, Taken

KEPT_MEASUREMENTS = 1000
_PATIENCE = 60.0  # seconds to wait for another process, which holds the table for a moment
_LAST_ID = 2**63 - 1
_COLUMNS = tuple(field.name for field in fields(Job))
_MEASURED = tuple(field.name for field in fields(Measurement))


class QueueFailed(Exception):
    """The disk or the database refuses; the text is a sentence, and says what to do."""


class _Damaged(QueueFailed):
    """The database cannot be read."""


class NameTaken(Exception):
    """An unfinished training of that name is to lie in the same folder."""


class JobStore(Protocol):
    """The jobs in their order, and what was measured. Each method is done whole or not at all."""

    def changing(self) -> AbstractContextManager[None]:
        """What is done within it is done together, or where something is raised, not at all."""

    def add(self, job: Job, first: bool = False) -> Job:
        """Queues a job behind all others, or before them; it gets a number never used before, at least `job.id`.

        Raises NameTaken.
        """

    def job(self, id: int) -> Job:
        """Raises NoSuchJob."""

    def jobs(
        self, statuses: Collection[str] = STATUSES, limit: int | None = None, before: int | None = None
    ) -> list[Job]:
        """The newest first, at most `limit`; `before`: only those with a smaller number."""

    def line(self) -> list[Job]:
        """What works, then what is queued, in its order."""

    def claim(self, at: float) -> Job | None:
        """Makes the next queued job the running one, from `at` on; None where one works or none waits."""

    def change(self, id: int, when: Collection[str], **values: Any) -> bool:
        """Sets columns of a job whose status is one of `when`; whether there was one. Raises NameTaken."""

    def requeue(self, id: int, when: Collection[str]) -> bool:
        """Queues a job before all others if its status is one of `when`; whether there was one. Raises NameTaken."""

    def move(self, id: int, where: str) -> bool:
        """Moves a queued job "up", "down", "first" or "last" in the line; whether it is queued."""

    def delete(self, id: int, when: Collection[str]) -> bool:
        """Forgets a job whose status is one of `when`; whether there was one."""

    def measure(self, measurement: Measurement) -> None:
        """Keeps it, and forgets the oldest of more than `KEPT_MEASUREMENTS`."""

    def measurements(self) -> list[Measurement]:
        """The oldest first."""

    def close(self) -> None: ...


class SqliteStore:
    """A store in a file. Threads share its connection, one at a time; processes have one each."""

    def __init__(self, path: Path, found: Callable[[], Iterable[Job]] = tuple) -> None:
        """`found`: the jobs that a database made anew begins with. Raises QueueFailed.

        `notice` says where a damaged file was put aside, "" where all was well.
        """
        self.notice = ""
        self._path, self._found = path, found
        self._lock = threading.RLock()
        try:
            with Lock(path.with_name(f"{path.name}.lock")).take(_PATIENCE):
                try:
                    self._connection = self._opened()
                except _Damaged:
                    self.notice = f"{path.name} was damaged. It is now {put_aside(path)}, and was built anew."
                    self._connection = self._opened()
        except (OSError, Taken) as error:
            raise self._unusable(str(error)) from error

    @contextmanager
    def changing(self) -> Iterator[None]:
        with self._using() as db:
            if db.in_transaction:
                yield
                return
            db.execute("BEGIN IMMEDIATE")
            with db:
                yield

    def add(self, job: Job, first: bool = False) -> Job:
        with self.changing(), self._using() as db:
            (used,) = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'job'").fetchone()
            added = replace(job, id=max(job.id, used + 1), position=self._end_of_line(first))
            _insert(db, added)
        return added

    def job(self, id: int) -> Job:
        with self._using() as db:
            found = _rows(db, "WHERE id = ?", [_known(id)])
        if not found:
            raise NoSuchJob(id)
        return found[0]

    def jobs(
        self, statuses: Collection[str] = STATUSES, limit: int | None = None, before: int | None = None
    ) -> list[Job]:
        below = _LAST_ID if before is None else max(0, min(before, _LAST_ID))
        most = -1 if limit is None else max(0, min(limit, _LAST_ID))
        with self._using() as db:
            where = f"WHERE status IN ({_marks(statuses)}) AND id < ? ORDER BY id DESC LIMIT ?"
            return _rows(db, where, [*statuses, below, most])

    def line(self) -> list[Job]:
        with self._using() as db:
            return [
                *_rows(db, f"WHERE status IN ({_marks(ACTIVE)}) ORDER BY id", ACTIVE),
                *_rows(db, "WHERE status = 'queued' ORDER BY position"),
            ]

    def claim(self, at: float) -> Job | None:
        with self.changing():
            for job in self.line()[:1]:  # where one works, it is the first, and is not queued
                beginning = {"started_at": at, "ended_at": None, "reason": "", "cause": "", "remedy": ""}
                if self.change(job.id, ("queued",), status="running", attempts=job.attempts + 1, **beginning):
                    return self.job(job.id)
            return None

    def change(self, id: int, when: Collection[str], **values: Any) -> bool:
        _check(values, _COLUMNS)
        columns = ", ".join(f"{name} = ?" for name in values) or "id = id"
        with self._using() as db:
            where = f"WHERE id = ? AND status IN ({_marks(when)})"
            return _changed(db, f"UPDATE job SET {columns} {where}", [*values.values(), _known(id), *when]) == 1

    def requeue(self, id: int, when: Collection[str]) -> bool:
        with self.changing():
            waiting = {"status": "queued", "ended_at": None, "pid": None}
            return self.change(id, when, position=self._end_of_line(first=True), **waiting)

    def move(self, id: int, where: str) -> bool:
        with self.changing():
            queued = [job for job in self.line() if job.status == "queued"]
            place = next((place for place, job in enumerate(queued) if job.id == id), None)
            if place is None:
                return False
            target = {"up": max(0, place - 1), "down": place + 1, "first": 0, "last": len(queued)}[where]
            positions = [job.position for job in queued]
            queued.insert(target, queued.pop(place))
            for job, position in zip(queued, positions, strict=True):
                if job.position != position:
                    self.change(job.id, ("queued",), position=position)
            return True

    def delete(self, id: int, when: Collection[str]) -> bool:
        with self._using() as db:
            where = f"WHERE id = ? AND status IN ({_marks(when)})"
            return _changed(db, f"DELETE FROM job {where}", [_known(id), *when]) == 1

    def measure(self, measurement: Measurement) -> None:
        with self.changing(), self._using() as db:
            values = astuple(measurement)
            db.execute(f"INSERT INTO measurement ({', '.join(_MEASURED)}) VALUES ({_marks(values)})", values)
            newest = "SELECT rowid FROM measurement ORDER BY rowid DESC LIMIT ?"
            db.execute(f"DELETE FROM measurement WHERE rowid NOT IN ({newest})", [KEPT_MEASUREMENTS])

    def measurements(self) -> list[Measurement]:
        with self._using() as db:
            rows = db.execute(f"SELECT {', '.join(_MEASURED)} FROM measurement ORDER BY rowid")
            found = [Measurement(*row) for row in rows]
        return [replace(row, checkpointing=bool(row.checkpointing)) for row in found]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _end_of_line(self, first: bool) -> int:
        """A position before all queued jobs, or behind them."""
        positions = [job.position for job in self.line() if job.status == "queued"]
        return min(positions, default=0) - 1 if first else max(positions, default=0) + 1

    def _opened(self) -> sqlite3.Connection:
        """The connection to a whole database of this version."""
        with self._told():
            db = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            with self._told():
                self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        # Readers go on while another process writes. Where a disk cannot have it, the default serves as well.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise self._damaged()
        db.execute("BEGIN IMMEDIATE")
        with db:
            version = version_of(db)
            if version > len(MIGRATIONS):
                raise QueueFailed(f"{self._path} is from a later version of this program. Update the program.")
            migrate(db)
            for job in self._found() if version == 0 else ():
                _insert(db, job)

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._told():
            yield self._connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever SQLite finds wrong becomes a sentence."""
        try:
            with told(self._unusable, self._damaged):
                yield
        except sqlite3.IntegrityError as error:
            if "UNIQUE" not in str(error):
                raise
            raise NameTaken from error

    def _unusable(self, reason: str) -> QueueFailed:
        remedy = "Check the rights to its folder and the space on its disk."
        return QueueFailed(f"{self._path} cannot be read and written: {reason.rstrip('.')}. {remedy}")

    def _damaged(self) -> _Damaged:
        return _Damaged(f"{self._path} is damaged. Start the program again: it is built anew from the jobs' folders.")


def _rows(db: sqlite3.Connection, where: str, values: Collection[object] = ()) -> list[Job]:
    return [Job(*row) for row in db.execute(f"SELECT {', '.join(_COLUMNS)} FROM job {where}", tuple(values))]


def _insert(db: sqlite3.Connection, job: Job) -> None:
    values = tuple(getattr(job, name) for name in _COLUMNS)
    db.execute(f"INSERT INTO job ({', '.join(_COLUMNS)}) VALUES ({_marks(values)})", values)


def _changed(db: sqlite3.Connection, statement: str, values: Collection[object]) -> int:
    return db.execute(statement, tuple(values)).rowcount


def _known(id: int) -> int:
    """The number, or 0, which no job has, for one that SQLite cannot hold."""
    return id if 0 < id <= _LAST_ID else 0


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _check(names: Iterable[str], known: Collection[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise TypeError(f"A job has no {', '.join(unknown)}.")

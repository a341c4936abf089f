"""Locks between processes, and between threads of one, that are gone with whoever holds them.

Each is an empty SQLite database in an exclusive transaction: the same on every system, with nothing to clean up after a
kill. Such a file must be opened by nothing else: on POSIX, closing it there would end the lock.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

PATIENCE = 1.0  # seconds: far longer than `is_taken` keeps others out while it looks


class Taken(Exception):
    """Somebody else holds the lock."""


class Lock:
    """A lock by the name of a file, which stays; its folder must be there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: sqlite3.Connection | None = None

    def take(self, wait: float = 0) -> Lock:
        """Takes the lock, waiting up to `wait` seconds, a second at least. Raises Taken, OSError."""
        self._held = _opened(self._path, max(wait, PATIENCE), "BEGIN EXCLUSIVE")
        return self

    def release(self) -> None:
        if self._held is not None:
            self._held.close()
        self._held = None

    def __enter__(self) -> Lock:
        if self._held is None:
            self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_taken(path: Path) -> bool:
    """Whether somebody holds the lock of that name. Creates no file. Raises OSError."""
    if not path.exists():
        return False
    try:
        _opened(path, 0, "SELECT 1 FROM sqlite_master").close()
    except Taken:
        return True
    return False


def _opened(path: Path, patience: float, statement: str) -> sqlite3.Connection:
    """A connection that has carried the statement out. Raises Taken, OSError."""
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever written: no file beside it
        connection.execute(statement).fetchall()
    except sqlite3.DatabaseError as error:
        if connection:
            connection.close()
        if "locked" in str(error):
            raise Taken(f"{path} is held by another process or thread.") from error
        raise OSError(f"{path} cannot be locked ({error}).") from error
    return connection

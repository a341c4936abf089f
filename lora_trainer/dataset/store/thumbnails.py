"""Small pictures for a page of many, made once and kept beside the set."""

from __future__ import annotations

import io
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lora_trainer.config import BadInput
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.pictures import read_small
from lora_trainer.dataset.store.index import HOME, stamp_at

SIDE = 256
MEDIA_TYPE = "image/jpeg"  # a WebP is a third smaller, but takes ten times as long to write
_QUALITY = 85
_SCHEMA = "CREATE TABLE IF NOT EXISTS thumbnails (file TEXT PRIMARY KEY, stamp TEXT NOT NULL, data BLOB NOT NULL)"

Answer = TypeVar("Answer")


class Thumbnails:
    """JPEGs of at most SIDE pixels a side of a set's pictures, or of any others; threads may share it.

    They are kept in `.lora_trainer/thumbnails.sqlite`, by file and stamp. What is kept there may be lost at any time:
    a damaged file is thrown away, and where none can be written, thumbnails are made anew each time.
    """

    def __init__(self, dataset_folder: Path) -> None:
        self._folder = dataset_folder
        self._file = dataset_folder / HOME / "thumbnails.sqlite"
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def get(self, path: Path) -> bytes:
        """Raises BadInput where the picture cannot be read."""
        [thumbnail] = self.page([path])
        return thumbnail if thumbnail is not None else _made(path)

    def page(self, paths: Sequence[Path]) -> list[bytes | None]:
        """Those of a page; None for pictures that cannot be read. What is missing is made in a few threads."""
        stamps = {path: stamp_at(path) for path in paths}
        kept = self._kept(stamps)
        missing = [path for path in stamps if path not in kept]
        made = {path: data for path, data in zip(missing, ahead(_made_or_none, missing)) if data is not None}
        if made:
            rows = [(self._name(path), stamps[path], data) for path, data in made.items()]
            self._ask(lambda db: db.executemany("REPLACE INTO thumbnails VALUES (?, ?, ?)", rows))
        every = kept | made
        return [every.get(path) for path in paths]

    def close(self) -> None:
        with self._lock:
            self._closed()

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _kept(self, stamps: dict[Path, str]) -> dict[Path, bytes]:
        def look(db: sqlite3.Connection) -> dict[Path, bytes]:
            question = "SELECT data FROM thumbnails WHERE file = ? AND stamp = ?"
            rows = ((path, db.execute(question, (self._name(path), stamps[path])).fetchone()) for path in stamps)
            return {path: row[0] for path, row in rows if row}

        return self._ask(look) or {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix() if path.is_relative_to(self._folder) else str(path.absolute())

    def _ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """None where there is no answer to be had."""
        with self._lock:
            for _ in range(2):
                try:
                    with self._opened() as db:  # a transaction
                        db.execute(_SCHEMA)
                        return question(db)
                except sqlite3.OperationalError:  # locked, full, not to be written: another time
                    return None
                except sqlite3.DatabaseError:
                    self._thrown_away()
        return None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._file, timeout=0.1, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = OFF")  # a cache need not outlive a power cut
        return self._db

    def _closed(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _thrown_away(self) -> None:
        self._closed()
        try:
            self._file.unlink(missing_ok=True)
        except OSError:  # another process has it open, on Windows
            return


def _made(path: Path) -> bytes:
    buffer = io.BytesIO()
    picture = read_small(path, SIDE)
    picture.info.clear()  # a profile that is applied already
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _made_or_none(path: Path) -> bytes | None:
    try:
        return _made(path)
    except BadInput:
        return None

"""Captions on their way from the index into their files."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lora_trainer.dataset.listing import some
from lora_trainer.dataset.store.index import Index, Row, change, rows, stamp_at
from lora_trainer.files import sync_folder, written_whole

_AT_ONCE = 200  # files before another process has its turn
_GAP_SECONDS = 0.002  # in which a thread that waits to change the index has its turn
_WRITERS = 8  # a disk forces several files to it at once in little more time than one
_PENDING = "pending AND NOT gone"
_REFUSED = "Captions that are kept, but could not be written to their files yet"

Progress = Callable[[int, int], None]


def caption_file(folder: Path, row: Row, caption_extension: str) -> Path:
    """Where the row's caption is, or is going to be."""
    return folder / row.folder / (row.caption_file or Path(row.file).stem + caption_extension)


def write_pending(index: Index, folder: Path, caption_extension: str, progress: Progress | None = None) -> list[str]:
    """Writes the captions that their files do not hold yet; returns sentences.

    A file that is not as the index knows it is left alone: the next refresh will find it. What the disk refuses stays
    pending. `progress` is told how many files are done, of how many.
    """
    with index.reading() as db:
        total = len(rows(db, _PENDING))
    refused: dict[str, list[str]] = defaultdict(list)
    last = done = 0
    while done < total:
        with index.changing() as db:
            some_rows = rows(db, f"{_PENDING} AND id > ? ORDER BY id LIMIT ?", (last, _AT_ONCE))
            change(db, _write(some_rows, folder, caption_extension, refused))
        if not some_rows:
            break
        time.sleep(_GAP_SECONDS)
        last, done = some_rows[-1].id, done + len(some_rows)
        if progress:
            progress(done, total)
    if total:
        index.tidy()
    return [f"{_REFUSED} ({reason}): {some(sorted(names))}." for reason, names in refused.items()]


def _write(pending: Sequence[Row], folder: Path, caption_extension: str, refused: dict[str, list[str]]) -> list[Row]:
    """The rows as they are when their captions are on the disk; those that could not be written are not among them."""

    def write(row: Row) -> Row:
        file = caption_file(folder, row, caption_extension)
        try:
            return _written(row, file) if stamp_at(file) == row.caption_stamp else row
        except OSError as error:
            refused[error.strerror or str(error)].append(row.name)
            return row

    with ThreadPoolExecutor(_WRITERS) as pool:
        written = [row for row in pool.map(write, pending) if not row.pending]
    for name in {row.folder for row in written}:
        sync_folder(folder / name)
    return written


def _written(row: Row, file: Path) -> Row:
    if row.caption is None:
        file.unlink(missing_ok=True)
        return row._replace(caption_file="", caption_stamp="", pending=0)
    with written_whole(file, folder_too=False) as temporary:
        temporary.write_bytes(row.caption.encode())
        stamp = stamp_at(temporary)
    return row._replace(caption_file=file.name, caption_stamp=stamp, pending=0)

"""Files on their way to another place in the set: noted in the index first, so that a kill leaves none half moved.

Within transactions of the index (`Index.changing`): one notes the moves, the next makes them. Where a kill comes
between the two, whoever opens the set next makes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.folders import LEFT_OUT, ORIGINALS
from lora_trainer.dataset.pictures import PICTURE_ENDINGS, picture_size
from lora_trainer.dataset.store import index
from lora_trainer.dataset.store.index import HOME, Row, stamp_at
from lora_trainer.files import sync_folder, written_whole

_STAGED = "replacing-"


class Move(NamedTuple):
    """`source` becomes `target`, both named from the set's folder. Where `old` is given, it is what makes place, while
    its stamp is still the same; else nothing is overwritten. Of one entry's moves, each waits for the one before."""

    entry: int
    source: str
    target: str
    old: str = ""
    old_stamp: str = ""


def finish(db: sqlite3.Connection, folder: Path) -> dict[int, str]:
    """Makes the moves that are noted; returns why the disk refuses one, by entry. Refused moves are forgotten."""
    refused: dict[int, str] = {}
    for row in db.execute("SELECT entry, source, target, old, old_stamp FROM move ORDER BY id").fetchall():
        move = Move(*row)
        try:
            if move.entry not in refused:
                _make(move, folder)
        except OSError as error:
            refused[move.entry] = f"{move.old or move.source}: cannot be moved ({error.strerror}). Close it elsewhere."
    db.execute("DELETE FROM move")
    for leftover in (folder / HOME).glob(f"{_STAGED}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()
    return refused


def note_leaving(db: sqlite3.Connection, folder: Path, row: Row) -> None:
    """The picture is to go to left_out/10_zdm/, or to left_out/10_zdm (2)/ where that has a file of its name.

    Its caption goes with it, unless it is another picture's too.
    """
    index.change(db, [row._replace(gone=1)])
    shared = index.rows(db, "NOT gone AND folder = ? AND caption_file = ?", (row.folder, row.caption_file))
    files = [row.file] if shared or not row.caption_file else [row.file, row.caption_file]
    place = plain = PurePosixPath(LEFT_OUT, row.folder)
    number = 1
    while any(os.path.lexists(folder / place / file) for file in files):
        number += 1
        place = plain.with_name(f"{plain.name} ({number})")
    for file in files:
        note(db, Move(row.id, str(PurePosixPath(row.folder, file)), str(place / file)))


def note_replacing(db: sqlite3.Connection, folder: Path, row: Row, write: Callable[[Path], None]) -> Row:
    """The PNG that `write` makes is to take the picture's place, its original kept; returns the row as it is then."""
    old = PurePosixPath(row.folder, row.file)
    target = old if old.suffix.lower() == ".png" else old.with_suffix(".png")
    if target != old and os.path.lexists(folder / target):
        problem = f"would become {target.name}, which is there already"
        raise BadInput(Problem("dataset", row.name, problem, "Rename one of the two."))
    staged = f"{HOME}/{_STAGED}{row.id}.png"
    try:
        width, height = _stage(folder / staged, write)
        original = row.original or _keep(folder, row)
    except OSError as error:
        problem, remedy = f"cannot be replaced ({error.strerror})", "Check the space on the disk and the rights to it."
        raise BadInput(Problem("dataset", row.name, problem, remedy)) from error
    note(db, Move(row.id, staged, str(target), str(old), stamp_at(folder / old)))
    return row._replace(
        file=target.name, stamp=stamp_at(folder / staged), width=width, height=height, original=original
    )


def _stage(staged: Path, write: Callable[[Path], None]) -> Size:
    """Writes a picture and forces it to the disk; returns its size. What fails leaves no file."""
    try:
        write(staged)
        with staged.open("rb+") as file:
            os.fsync(file.fileno())
        sync_folder(staged.parent)
        return picture_size(staged)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def _keep(folder: Path, row: Row) -> str:
    """Gives the picture a second name in originals/, or a copy where the disk knows no such thing; returns it.

    It lies in originals/2/ where originals/ has another of its stem, as when a person has drawn over it since.
    """
    picture, originals = folder / row.folder / row.file, folder / ORIGINALS
    place, number = originals, 1
    while stamp_at(place / row.file) != stamp_at(picture) and _has_stem(place, picture):
        number += 1
        place = originals / str(number)
    original = place / row.file
    place.mkdir(parents=True, exist_ok=True)
    try:
        original.hardlink_to(picture)
        sync_folder(place)
    except FileExistsError:  # a kill came between this and the note of it
        pass
    except OSError:
        with written_whole(original) as temporary:
            shutil.copy2(picture, temporary)
    return original.relative_to(originals).as_posix()


def _has_stem(folder: Path, picture: Path) -> bool:
    return any(os.path.lexists(folder / (picture.stem + ending)) for ending in (picture.suffix, *PICTURE_ENDINGS))


def note(db: sqlite3.Connection, move: Move) -> None:
    """Adds it to the moves that `finish` makes."""
    db.execute("INSERT INTO move VALUES (NULL, ?, ?, ?, ?, ?)", move)


def _make(move: Move, folder: Path) -> None:
    source, target, old = folder / move.source, folder / move.target, folder / move.old
    unchanged = bool(move.old) and stamp_at(old) == move.old_stamp
    if source.exists() and (unchanged if old == target else not os.path.lexists(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        sync_folder(target.parent)
    if unchanged and old != target and not source.exists() and target.exists():
        old.unlink()

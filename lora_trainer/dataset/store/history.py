"""Every change of a caption, and the way back: steps of one or many pictures, undone and redone.

Within a transaction of the index (`Index.changing`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

Change = tuple[int, "str | None", "str | None"]  # entry, caption before, caption after; None: no caption file
_NEXT_TURN = "(SELECT 1 + coalesce(max(turn), 0) FROM step)"  # when each was last made, undone or redone
_STEPS = "SELECT id, what, (SELECT count(*) FROM change WHERE step = step.id), undone, at FROM step"


@dataclass(frozen=True)
class Step:
    """Captions changed at one go. `at`: seconds since 1970.

    `left` is said by undo and redo: the pictures whose caption somebody has changed since, and which so keep it.
    """

    id: int
    what: str
    count: int
    undone: bool
    at: float
    left: tuple[str, ...] = ()


def record(db: sqlite3.Connection, what: str, changes: Sequence[Change], step: int | None = None) -> int:
    """Adds changes to a step, or to one of its own where that has been undone; returns the step."""
    if not step or not db.execute("SELECT 1 FROM step WHERE id = ? AND NOT undone", (step,)).fetchone():
        values = f"(NULL, ?, ?, FALSE, {_NEXT_TURN})"
        step = db.execute(f"INSERT INTO step VALUES {values}", (what, time.time())).lastrowid
    db.executemany(
        "INSERT INTO change VALUES (?, ?, ?, ?) ON CONFLICT (step, entry) DO UPDATE SET new = excluded.new",
        [(step, *change) for change in changes],
    )
    return step or 0


def forget_undone(db: sqlite3.Connection) -> None:
    """What has been undone cannot be redone from here on."""
    db.execute("DELETE FROM change WHERE step IN (SELECT id FROM step WHERE undone)")
    db.execute("DELETE FROM step WHERE undone")


def steps(db: sqlite3.Connection) -> list[Step]:
    return [_step(row) for row in db.execute(f"{_STEPS} ORDER BY id")]


def undo(db: sqlite3.Connection) -> Step | None:
    """The step that was made or redone last is undone; None where none stands."""
    return _turn(db, undone=True)


def redo(db: sqlite3.Connection) -> Step | None:
    """The step that was undone last stands again; None where there is none."""
    return _turn(db, undone=False)


def _turn(db: sqlite3.Connection, undone: bool) -> Step | None:
    row = db.execute(f"{_STEPS} WHERE undone = ? ORDER BY turn DESC LIMIT 1", (not undone,)).fetchone()
    if row is None:
        return None
    step = _step(row)
    db.execute(f"UPDATE step SET undone = ?, turn = {_NEXT_TURN} WHERE id = ?", (undone, step.id))
    left = _swap(db, step.id, "new", "old") if undone else _swap(db, step.id, "old", "new")
    return replace(step, undone=undone, left=left)


def _swap(db: sqlite3.Connection, step: int, present: str, wanted: str) -> tuple[str, ...]:
    """Gives the step's captions their wanted text where they are as it knows them; returns the names of the others."""
    changed = f"entry JOIN change ON change.entry = entry.id AND change.step = {step}"
    left = db.execute(f"SELECT folder, file FROM {changed} WHERE NOT gone AND caption IS NOT change.{present}")
    names = tuple(f"{folder}/{file}" for folder, file in left)
    text = f"SELECT {wanted} FROM change WHERE step = {step} AND entry = entry.id"
    db.execute(
        f"UPDATE entry SET pending = 1, caption = ({text})"
        f" WHERE id IN (SELECT entry.id FROM {changed} WHERE caption IS change.{present})"
    )
    return names


def _step(row: tuple[int, str, int, int, float]) -> Step:
    number, what, count, undone, at = row
    return Step(number, what, count, bool(undone), at)

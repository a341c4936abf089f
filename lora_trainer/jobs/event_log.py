"""A job's events on disk: appended by its worker line by line, read by everybody else from any offset.

A line is {"at": seconds since 1970, "event": kind, ...facts}. An offset counts bytes from the file's beginning.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

ENDS = ("finished", "prepared", "stopped", "failed")  # a worker says nothing after one of these
POLL_SECONDS = 0.2
_BLOCK = 1 << 16
_FREQUENT = {f' "event": "{kind}"'.encode(): kind for kind in ("progress", "phase", "download")}


@dataclass(frozen=True)
class Event:
    """`at`: seconds since 1970; `next`: the offset after its line, from which to read on."""

    kind: str
    at: float
    facts: dict[str, Any]
    next: int

    def as_dict(self) -> dict[str, Any]:
        """As it is in the file."""
        return {"at": self.at, "event": self.kind, **self.facts}


class EventWriter:
    """A report (jobs/events.py) that appends each event to a file. One process writes to a file at a time.

    A disk that refuses a line does not end the run: `waiting` keeps what it refused, which goes before the next line.
    An end (one of ENDS) is forced to the disk. Opening raises OSError, and cuts off what a kill left of a line.
    """

    def __init__(self, path: Path) -> None:
        self.waiting = bytearray()
        self._alone = threading.Lock()
        self._file = path.open("ab+", buffering=0)
        self._file.truncate(_end_of_lines(self._file))

    def __call__(self, kind: str, /, **facts: Any) -> None:
        line = json.dumps(
            _with_finite_numbers({"at": time.time(), "event": kind, **facts}), ensure_ascii=False, default=str
        )
        with self._alone:
            # A file's name that is no text has lone surrogates, which JSON can say though UTF-8 cannot.
            self.waiting += line.encode("utf-8", "backslashreplace") + b"\n"
            with suppress(OSError):
                self._write(forced=kind in ENDS)

    def close(self) -> None:
        with self._alone, self._file, suppress(OSError):
            self._write(forced=True)

    def __enter__(self) -> EventWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, forced: bool) -> None:
        while self.waiting:
            del self.waiting[: self._file.write(self.waiting)]
        if forced:
            os.fsync(self._file.fileno())


def read_events(path: Path, offset: int = 0, most: int = 1000) -> tuple[list[Event], int]:
    """At most `most` events from `offset` on, and the offset to go on from. A missing file has none.

    A line that is not whole yet is left for the next time; a damaged one is passed over. An offset may be any number
    from 0 on: beyond the file's end there is nothing, and inside a line its rest is passed over.
    """
    events: list[Event] = []
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return events, offset
    with file:
        if offset > file.seek(0, os.SEEK_END):
            return events, offset
        file.seek(offset)
        for line in file:
            if len(events) == most or not line.endswith(b"\n"):
                break
            offset += len(line)
            if event := _event(line, offset):
                events.append(event)
    return events, offset


def find_events(path: Path, kinds: Collection[str]) -> Iterator[Event]:
    """The events of these kinds, in their order; lines of other kinds are not taken apart. A missing file has none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for start in sorted({start for kind in kinds for start in _lines_with(data, f'"event": {json.dumps(kind)}')}):
        end = data.find(b"\n", start) + 1
        if end and (event := _event(data[start:end], end)) and event.kind in kinds:
            yield event


def in_short(path: Path, points: int) -> tuple[list[Event], int]:
    """A file's events for who comes late to a long training, and the offset to go on from.

    Of what comes with every step about `points` and the last; of phases the last before another event; the rest whole.
    """
    every = max(1, -(-sum(kind == "progress" for _, kind in _with_kinds(path)) // max(1, points)))
    events, offset, step = [], 0, 0
    for (line, kind), (_, following) in pairwise(chain(_with_kinds(path), [(b"", "")])):
        offset += len(line)
        step += kind == "progress"
        shown = step % every == 0 if kind == "progress" else not kind
        if (shown or kind != following) and (event := _event(line, offset)):
            events.append(event)
    return events, offset


def last_event(path: Path) -> Event | None:
    """The newest event, found from the end of the file."""
    size = path.stat().st_size if path.is_file() else 0
    span = _BLOCK
    while True:
        events, _ = read_events(path, max(0, size - span), most=size)
        if events or span >= size:
            return events[-1] if events else None
        span *= 8


def end_of_events(path: Path) -> int:
    """The offset after the last whole line: where the events of a worker that starts next will begin."""
    try:
        with path.open("rb") as file:
            return _end_of_lines(file)
    except FileNotFoundError:
        return 0


def follow(path: Path, offset: int, ended: Callable[[], bool], poll: float = POLL_SECONDS) -> Iterator[Event]:
    """Each event from `offset` on, once, as it comes, until `ended()` and all are told. `poll`: seconds between looks.

    Who can't be kept waiting calls `read_events` in the same way: `ended()` is asked before the look, not after it.
    """
    while True:
        over = ended()
        events, offset = read_events(path, offset)
        yield from events
        if not events:
            if over:
                return
            time.sleep(poll)


def _lines_with(data: bytes, mark: str) -> Iterator[int]:
    """Where the lines begin in which the mark stands."""
    at = data.find(mark.encode("utf-8"))
    while at >= 0:
        yield data.rfind(b"\n", 0, at) + 1
        at = data.find(mark.encode("utf-8"), at + 1)


def _with_kinds(path: Path) -> Iterator[tuple[bytes, str]]:
    """Each whole line with its event's kind, as `_frequent_kind` has it. A missing file has none."""
    if path.is_file():
        with path.open("rb") as file:
            yield from ((line, _frequent_kind(line)) for line in file if line.endswith(b"\n"))


def _frequent_kind(line: bytes) -> str:
    """The event's kind if it is one of which there are many, else ""; without taking the line apart."""
    return _FREQUENT.get(b"".join(line.split(b",", 2)[1:2]), "")  # behind its time


def _event(line: bytes, end: int) -> Event | None:
    try:
        facts = json.loads(line.decode("utf-8"))
        kind, at = str(facts.pop("event")), float(facts.pop("at"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Event(kind, at, facts, end)


def _end_of_lines(file: BinaryIO | Any) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return int(start + newline + 1)
        end = start
    return 0


def _with_finite_numbers(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _with_finite_numbers(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_finite_numbers(inner) for inner in value]
    return value

"""What a run tells while it goes: `report("progress", step=3, loss=0.1)`; who listens decides how to show it.

kinds: started, phase (name, done, of), download (name, done, total: bytes), progress, sample, saved, warning, measured,
adjusted; paused (freed: bytes) and resumed; stopped, finished. prepared ends the preparing of a dataset; heeded (id,
command) and failed (reason, cause, remedy) are told of jobs. Of a grid, started, phase, sample (path, row, number,
weight, prompt) and finished (picture) are told.
"""

from __future__ import annotations

from typing import Any, Protocol


class Report(Protocol):
    def __call__(self, kind: str, /, **facts: Any) -> None: ...


def silent(kind: str, /, **facts: Any) -> None:
    """A listener that drops everything."""

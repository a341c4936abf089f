"""Asking a run to stop at its next step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Set by whoever wants the run to end; the loop looks at it between steps and saves first."""

    def __init__(self) -> None:
        self.wanted = False

    def ask(self) -> None:
        self.wanted = True


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """Ctrl-C asks for a stop; a second one ends the process at once, as it would without this."""
    stop = Stop()

    def asked(number: int, frame: FrameType | None) -> None:
        if stop.wanted:
            raise KeyboardInterrupt
        stop.ask()

    before = signal.signal(signal.SIGINT, asked)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)

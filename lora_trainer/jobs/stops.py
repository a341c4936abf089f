"""What a run can be asked while it goes: to stop, to pause, to save or to draw."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Wishes:
    """`save` and `sample` are to be done once; `stop` and `paused` hold until they are taken back, and stop wins."""

    stop: bool = False
    save: bool = False
    sample: bool = False
    paused: bool = False


class Control(Protocol):
    """Whoever may ask a run for something; the run looks between two steps, or two pictures."""

    def wishes(self) -> Wishes:
        """What was asked since the last call: a `save` or `sample` is given out once."""

    def wait(self) -> None:
        """A short while, for a run that is paused."""


class Stop:
    """A control that can only ask for the end; the run saves first."""

    def __init__(self) -> None:
        self.wanted = False

    def ask(self) -> None:
        self.wanted = True

    def wishes(self) -> Wishes:
        return Wishes(stop=self.wanted)

    def wait(self) -> None:
        time.sleep(WAIT_SECONDS)


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

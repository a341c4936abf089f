"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 30, every: float = 0.005) -> T:
    """What `look` returns once it is true. It is asked again and again, until it has taken far too long."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing came in {seconds} seconds"
        time.sleep(every)
    return found

"""What a kill would leave: copies of a folder, taken before each step of what happens to it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_STEPS = {"open", "os.rename", "os.remove", "os.rmdir", "os.link", "os.mkdir", "os.truncate"}
_watchers: list[Callable[[], None]] = []


def step(*_: Any) -> None:
    """Something happens that a kill may come before: a file operation, or what a test says of other things."""
    for watch in _watchers[:1]:
        watch()


@pytest.fixture(scope="session", autouse=True)
def hook() -> None:
    """It stays, as Python knows no way to take it back."""
    sys.addaudithook(lambda event, arguments: step() if event in _STEPS else None)


@contextmanager
def copied_at_each_step(folder: Path, copies: Path) -> Iterator[list[Path]]:
    """The folder, as a kill before each of the block's steps would leave it."""
    made: list[Path] = []

    def copy() -> None:
        _watchers.clear()  # the copying is no step of its own
        # SQLite makes the -shm file anew from the others, as after a kill of all its processes.
        kept = shutil.ignore_patterns("*-shm")
        made.append(Path(shutil.copytree(folder, copies / str(len(made)), ignore=kept)))
        _watchers.append(copy)

    _watchers.append(copy)
    try:
        yield made
    finally:
        _watchers.clear()

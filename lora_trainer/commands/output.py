"""Files that a command writes where its user says: never over another one without having been asked, and whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lora_trainer.config import BadInput, Problem
from lora_trainer.files import written_whole


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def refuse_existing(paths: Sequence[Path], force: bool) -> None:
    """BadInput for each file that would be replaced without having been asked for."""
    remedy = "Choose another name, or replace it with --force."
    taken = [Problem("output", path.name, "is there already", remedy) for path in paths if path.exists()]
    folders = [Problem("output", path.name, "is a folder", "Name a file.") for path in paths if path.is_dir()]
    if folders or (taken and not force):
        raise BadInput(folders or taken)


def write_output(path: Path, text: str) -> None:
    """BadInput where it cannot be written."""
    with written_output(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def written_output(path: Path) -> Iterator[Path]:
    """`written_whole`, with BadInput in place of OSError. The block should only write."""
    try:
        with written_whole(path) as temporary:
            yield temporary
    except OSError as error:
        problem = f"cannot be written ({error.strerror or error})"
        raise BadInput(Problem("output", str(path), problem, "Name another place, or make room there.")) from error

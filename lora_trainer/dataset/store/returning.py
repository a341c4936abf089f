"""Pictures that were left out, on their way back to where they were trained on."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.folders import CAPTION_ENDINGS, LEFT_OUT
from lora_trainer.dataset.listing import listed, stem, with_ending
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.moving import Move, note

_NUMBERED = re.compile(r" \(\d+\)$")  # what `note_leaving` puts behind a folder's name


def left_out(folder: Path) -> list[str]:
    """The pictures below left_out/, as `10_zdm/pic.png`, in natural order."""
    home = folder / LEFT_OUT
    return [picture.relative_to(home).as_posix() for place in _places(home) for picture in _pictures(place)]


def note_returning(db: sqlite3.Connection, folder: Path, files: Iterable[str]) -> list[str]:
    """Notes the moves of pictures and their captions; sentences about those whose place is taken.

    Raises BadInput, with nothing noted, where one of them is not among `left_out`.
    """
    wanted, there = list(files), set(left_out(folder))
    if unknown := [file for file in wanted if file not in there]:
        remedy = "Look at the list of left-out pictures again."
        raise BadInput(Problem("files", file, "is no picture that was left out", remedy) for file in unknown)
    sentences: list[str] = []
    targets: set[str] = set()
    for number, file in enumerate(wanted, 1):
        moves = list(_moves(folder, PurePosixPath(file), -number))
        if any(move.target in targets or os.path.lexists(folder / move.target) for move in moves):
            sentences.append(f"{file} stays left out: the set has a file of this name.")
            continue
        for move in moves:
            note(db, move)
            targets.add(move.target)
    return sentences


def _moves(folder: Path, file: PurePosixPath, number: int) -> Iterator[Move]:
    """The caption's, then the picture's; `number` stands for the entry, which there is not."""
    source = PurePosixPath(LEFT_OUT, file)
    there = (folder / file.parent).is_dir()
    target = file.parent if there else PurePosixPath(_NUMBERED.sub("", str(file.parent)))
    captions = with_ending(listed(folder / source.parent, "dataset"), CAPTION_ENDINGS)
    own = (caption.name for caption in captions if stem(caption) == stem(file))
    for name in (*own, file.name):
        yield Move(number, str(source.with_name(name)), str(target / name))


def _places(home: Path) -> list[Path]:
    return [home, *(entry for entry in listed(home, "dataset") if entry.is_dir())] if home.is_dir() else []


def _pictures(place: Path) -> list[Path]:
    return with_ending(listed(place, "dataset"), PICTURE_ENDINGS)

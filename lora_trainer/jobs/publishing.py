"""A LoRA put where it is used: in its new place it is whole or not there, and nothing else is written over."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from lora_trainer.files import sync_folder, temporary_path


def publish(source: Path, target: Path) -> None:
    """Gives `source` the second name `target`, or copies it where the disk knows no second names.

    Where `target` is this file already, or another one with the same bytes, nothing is done: a publishing that was
    killed can be repeated. Raises FileExistsError where it is any other file, OSError where the disk refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if not filecmp.cmp(source, target, shallow=False):
            raise FileExistsError(f"{target.name} is in {target.parent.name} already, and is another file.")
        return
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # on another disk, or on one without links
        _copy(source, target)
    sync_folder(target.parent)


def _copy(source: Path, target: Path) -> None:
    temporary = temporary_path(target)
    try:
        with source.open("rb") as read, temporary.open("wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)

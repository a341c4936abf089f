"""A LoRA put where it is used: in its new place it is whole or not there, and nothing else is written over."""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from lora_trainer.files import sync_folder, written_whole


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
        with written_whole(target) as temporary:
            shutil.copyfile(source, temporary)
    else:
        sync_folder(target.parent)

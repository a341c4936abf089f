"""One file of a dataset, sent by a client: whole, looked at, and never in the place of another one."""

from __future__ import annotations

import filecmp
import os
import uuid
from dataclasses import replace
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from lora_trainer.api.answers import Refused, problem
from lora_trainer.api.bodies import blocks
from lora_trainer.api.places import is_fit
from lora_trainer.config import BadInput
from lora_trainer.dataset.captions import LONGEST_CAPTION
from lora_trainer.dataset.folders import CAPTION_ENDINGS, is_named
from lora_trainer.dataset.pictures import PICTURE_ENDINGS, check_picture
from lora_trainer.files import sync_folder

MOST_BYTES = 256 << 20


def place_in(dataset: Path, path: str) -> Path:
    """Where a dataset has the file `10_name/file.png` or `file.png`. BadInput for any other path."""
    folder, _, name = path.rpartition("/")
    if folder and not is_fit_folder(folder):
        raise problem("folder", folder, "is no folder of pictures", "Use a name such as 10_my_pictures.")
    if not is_fit(name):
        raise problem("file", name, "is no name that every file system takes", "Use a plain name such as 1.png.")
    return dataset / folder / name


def is_fit_folder(name: str) -> bool:
    """Whether pictures in a dataset's folder of this name are trained: it says how often they are seen."""
    return is_fit(name) and is_named(name)


async def receive(request: Request, target: Path) -> bool:
    """Writes the request's bytes to `target`; False where that very file is there already.

    Raises BadInput for what is no picture or caption, or damaged; Refused where it is too large (413), or where
    `target` is another file (409).
    """
    most = most_bytes(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")  # two may send the same file at once
    try:
        with temporary.open("xb") as file:
            async for block in blocks(request, most):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return await run_in_threadpool(_put, temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def most_bytes(target: Path) -> int:
    """How large the file may be. BadInput where it is neither a picture nor a caption, by its name."""
    ending = target.suffix.lower()
    if ending in PICTURE_ENDINGS:
        return MOST_BYTES
    if ending in CAPTION_ENDINGS:
        return LONGEST_CAPTION
    endings = " ".join((*PICTURE_ENDINGS, *CAPTION_ENDINGS))
    raise problem("file", target.name, "is neither a picture nor a caption", f"Send files that end in {endings}.")


def _put(temporary: Path, target: Path) -> bool:
    if target.suffix.lower() in PICTURE_ENDINGS:
        _check_picture(temporary, target.name)
    if target.exists():
        if target.is_file() and filecmp.cmp(temporary, target, shallow=False):
            return False
        raise Refused(409, f"{target.name} already exists, and is another file. Choose another name.")
    temporary.rename(target)
    sync_folder(target.parent)
    return True


def _check_picture(temporary: Path, name: str) -> None:
    try:
        check_picture(temporary)
    except BadInput as error:
        raise BadInput([replace(each, setting="file", value=name) for each in error.problems]) from None

"""One of a job's LoRAs put where the WebUI finds it, under a name of the user's, with its card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Problem, file_name_fault
from lora_trainer.config.file_name import following
from lora_trainer.config.interchange.refill import read_lora
from lora_trainer.files import written_whole
from lora_trainer.jobs.card import WEIGHT, add_card, card_of, check_weight
from lora_trainer.jobs.checks import is_there
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.history import history
from lora_trainer.jobs.publishing import publish
from lora_trainer.jobs.renaming import is_same, renamed


def keep(
    folder: JobFolder,
    lora: Path,
    target: Path,
    weight: float | None = None,
    picture: str | None = None,
    replace: bool = False,
) -> None:
    """Gives the job's `lora` the place `target`, and a card there: with `weight`, and with the preview `picture`.

    Only with `replace` is another LoRA of this job written over, which the job still has, and never any other file.
    Raises BadInput, and OSError where the disk refuses.
    """
    check_weight(weight)
    if picture is not None and (file_name_fault(picture) or not (folder.samples / picture).is_file()):
        remedy = "Use one of GET /jobs/ID/samples."
        raise BadInput(Problem("picture", picture, "is no preview of this job", remedy))
    was: Mapping[str, Any] = {}
    with renamed(lora, target) as file:
        try:
            publish(file, target)
        except FileExistsError:
            if _to_replace(folder, lora, target, replace):
                was = card_of(read_lora(target)[0])
                with written_whole(target) as temporary:
                    shutil.copyfile(file, temporary)
    add_card(target, lora, folder, weight, folder.samples / picture if picture else None, was)


def suggestion(folder: JobFolder, lora: Path, target: Path) -> dict[str, Any]:
    """What `keep` may be given: the first free name from `target`'s on, the usual weight, pictures for the card."""
    names = chain([target.stem], following(target.stem))
    free = next(name for name in names if _is_free(lora, target.with_name(f"{name}.safetensors")))
    return {"name": free, "weight": WEIGHT, "pictures": history(folder).previews_of(lora.name)}


def name_fault(name: str) -> str | None:
    """Why a LoRA can't be called so, as the end of a sentence; None where it can."""
    wrong = "contains =, which a name in a prompt may not" if "=" in name else None
    return file_name_fault(name) or wrong


def _is_free(lora: Path, target: Path) -> bool:
    return not is_there(target) or is_same(lora, target)


def _to_replace(folder: JobFolder, lora: Path, target: Path, replace: bool) -> bool:
    """Whether `target`, which is there, has to be written over, and may be. BadInput where it may not."""
    if is_same(lora, target):
        return False
    there = next((each for each in sorted(folder.models.glob("*.safetensors")) if is_same(each, target)), None)
    name, place = target.name, target.parent.name
    if there is None:
        remedy = "Use another one."
        raise BadInput(Problem("name", target.stem, f"{name} is in {place} already, and is another file", remedy))
    if not replace:
        remedy = "Put the other one in its place, or choose another name."
        raise BadInput(Problem("replace", False, f"{name} in {place} is {there.name} of this job", remedy))
    return True

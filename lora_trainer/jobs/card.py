"""What the WebUI's LoRA cards show: NAME.json with the trigger word and the weight, NAME.png with a picture.

A user edits both in the WebUI, so that what they have written there stays, unless they choose another.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Problem
from lora_trainer.config.interchange.refill import read_lora
from lora_trainer.files import write_text, written_whole
from lora_trainer.jobs.checks import MOST_WEIGHT
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.history import history

WEIGHT = 0.8  # what is meant where nothing else is said
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
# Of ss_base_model_version; else the WebUI says Unknown. A1111 knows no Flux, and takes that word as none.
VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl": "SDXL", "flux": "Flux"}
NOTED = {
    "Base model": "ss_sd_model_name",
    "Epoch": "ss_epoch",
    "Steps": "ss_steps",
    "Rank": "ss_network_dim",
    "Pictures": "ss_num_train_images",
}


def add_card(
    lora: Path,
    source: Path,
    folder: JobFolder,
    weight: float | None = None,
    picture: Path | None = None,
    was: Mapping[str, Any] | None = None,
) -> None:
    """Gives `lora`, which is the job's `source` under the name it was published by, what it has not yet of a card.

    What its user has written there stays, but for the `weight` where one is given. `was` is the card that another LoRA
    would have had which lay here before: what stands there of that is nobody's own. A picture of the user's stays, one
    that is a preview of the job becomes `picture`, or the best one. A file that is no LoRA gets no card. OSError where
    the disk refuses.
    """
    try:
        metadata, _ = read_lora(lora)
    except BadInput:
        return
    made, there = card_of(metadata), read_card(lora)
    ours = {key: value for key, value in made.items() if was and key in there and there[key] == was.get(key)}
    chosen = {} if weight is None else {"preferred weight": weight}
    if there or not lora.with_suffix(".json").exists():
        _write(lora, there, {**(there or made), **ours, **chosen})
    best = folder.samples / next(iter(history(folder).previews_of(source.name)), ".")
    _add_picture(lora, picture or best, folder)


def change_card(lora: Path, changes: Mapping[str, Any]) -> None:
    """Writes these fields of NAME.json, which is made from what the file says where there is none; the rest stays.

    Raises BadInput where what is there cannot be read, OSError where the disk refuses.
    """
    there = read_card(lora)
    if not there and lora.with_suffix(".json").exists():
        remedy = "Correct it, or put it away."
        raise BadInput(Problem("card", lora.with_suffix(".json").name, "is no card that can be read", remedy))
    _write(lora, there, {**(there or card_of(read_lora(lora)[0])), **changes})


def check_weight(weight: float | None) -> None:
    """Raises BadInput where a card can't have this weight; None is the usual one."""
    if weight is not None and not 0 < weight <= MOST_WEIGHT:
        fault = f"must be more than 0 and at most {MOST_WEIGHT:g}"
        raise BadInput(Problem("weight", weight, fault, "Use one such as 0.8."))


def card_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The table that the WebUI keeps in NAME.json, from what a LoRA's file says of itself."""
    base = metadata.get("ss_base_model_version", "")
    comment = metadata.get("ss_training_comment", "None")
    noted = [f"{what}: {metadata[key]}" for what, key in NOTED.items() if metadata.get(key, "None") != "None"]
    return {
        "description": "" if comment == "None" else comment,
        "sd version": next((version for start, version in VERSIONS.items() if base.startswith(start)), "Unknown"),
        "activation text": metadata.get("modelspec.trigger_phrase", ""),
        "preferred weight": WEIGHT,
        "negative text": "",
        "notes": "\n".join(noted),
    }


def read_card(lora: Path) -> dict[str, Any]:
    """What stands in NAME.json; {} where there is none, or none that can be read."""
    try:
        card = json.loads(lora.with_suffix(".json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def picture_of(lora: Path) -> Path | None:
    """The picture on its card, where the WebUI would find it."""
    return next((path for path in _pictures(lora) if path.is_file()), None)


def files_of(lora: Path) -> list[Path]:
    """The LoRA and all of its card that there is."""
    return [path for path in (lora, lora.with_suffix(".json"), *_pictures(lora)) if path.is_file()]


def _write(lora: Path, there: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    if card != there:
        write_text(lora.with_suffix(".json"), json.dumps(card, ensure_ascii=False, indent=4))


def _add_picture(lora: Path, picture: Path, folder: JobFolder) -> None:
    """A copy of `picture`, if that is there; of those that the card has, only a preview of the job gives way."""
    old = picture_of(lora)
    if not picture.is_file() or (old and not _is_one_of(old, folder.samples)):
        return
    with written_whole(lora.with_suffix(picture.suffix)) as temporary:
        shutil.copyfile(picture, temporary)
    if old and old.suffix != picture.suffix:
        old.unlink()


def _is_one_of(picture: Path, folder: Path) -> bool:
    size = picture.stat().st_size
    same = (each for each in folder.iterdir() if each.suffix == picture.suffix and each.stat().st_size == size)
    return any(filecmp.cmp(picture, each, shallow=False) for each in same)


def _pictures(lora: Path) -> list[Path]:
    return [lora.with_name(lora.stem + part + ending) for part in ("", ".preview") for ending in PICTURES]

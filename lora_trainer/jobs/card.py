"""What the WebUI's LoRA cards show: NAME.json with the trigger word and the weight, NAME.png with a picture.

A user edits both in the WebUI, so that what is there is never written over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput
from lora_trainer.config.interchange.refill import read_lora
from lora_trainer.files import write_text, written_whole
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.history import history

WEIGHT = 0.8
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
VERSIONS = {"sd_v1": "SD1", "sd_v2": "SD2", "sdxl": "SDXL"}  # of ss_base_model_version; else the WebUI says Unknown


def add_card(lora: Path, source: Path, folder: JobFolder) -> None:
    """Gives `lora`, which is the job's `source` under the name it was published by, what it has not yet of a card.

    A file that is no LoRA gets none. OSError where the disk refuses.
    """
    try:
        metadata, _ = read_lora(lora)
    except BadInput:
        return
    words = lora.with_suffix(".json")
    if not words.exists():
        write_text(words, json.dumps(card_of(metadata), ensure_ascii=False, indent=4))
    preview = folder.samples / (history(folder).preview_of(source.name) or ".")
    if preview.is_file() and picture_of(lora) is None:
        with written_whole(lora.with_suffix(preview.suffix)) as temporary:
            shutil.copyfile(preview, temporary)


def card_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The table that the WebUI keeps in NAME.json, from what a LoRA's file says of itself."""
    base = metadata.get("ss_base_model_version", "")
    comment = metadata.get("ss_training_comment", "None")
    return {
        "description": "" if comment == "None" else comment,
        "sd version": next((version for start, version in VERSIONS.items() if base.startswith(start)), "Unknown"),
        "activation text": metadata.get("modelspec.trigger_phrase", ""),
        "preferred weight": WEIGHT,
        "negative text": "",
        "notes": "",
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


def _pictures(lora: Path) -> list[Path]:
    return [lora.with_name(lora.stem + part + ending) for part in ("", ".preview") for ending in PICTURES]

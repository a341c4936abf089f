"""What a LoRA's file calls itself: the WebUI's cards put that name into a prompt, and not the file's.

Two LoRAs that call themselves the same, or one that calls itself as another one's file is called, are mixed up there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_trainer.config.interchange.refill import read_table
from lora_trainer.files import temporary_path

OWN_NAME = "ss_output_name"
ALSO_NAMED = (OWN_NAME, "modelspec.title")
_BLOCK = 1 << 20


@contextmanager
def renamed(lora: Path, target: Path) -> Iterator[Path]:
    """A file with the weights of `lora` that calls itself as `target` is called.

    That is `lora` itself if it does so, or says no name; else a copy beside `target`, which goes with the block.
    Raises OSError.
    """
    table, start = _head(lora)
    said = _named(table, target.stem)
    if said == table:
        yield lora
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = temporary_path(target.with_suffix(".renamed"))  # not where `target` itself is being written
    try:
        _write(copy, said, lora, start)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def is_same(one: Path, other: Path) -> bool:
    """Whether two LoRAs differ at most in what they call themselves. Raises OSError."""
    (table, start), (other_table, other_start) = _head(one), _head(other)
    if _named(table, "") != _named(other_table, ""):
        return False
    if one.stat().st_size - start != other.stat().st_size - other_start:
        return False
    with one.open("rb") as file, other.open("rb") as other_file:
        file.seek(start)
        other_file.seek(other_start)
        while block := file.read(_BLOCK):
            if block != other_file.read(_BLOCK):
                return False
    return True


def _head(path: Path) -> tuple[dict[str, Any], int]:
    """The table that a safetensors file begins with, and where its weights begin; ({}, 0) for another file."""
    try:
        table, start = read_table(path)
    except (ValueError, RecursionError):
        return {}, 0
    return (table, start) if isinstance(table, dict) else ({}, 0)


def _named(table: dict[str, Any], name: str) -> dict[str, Any]:
    """The same table of a LoRA that calls itself `name`; one that says no name stays as it is."""
    said = table.get("__metadata__")
    if not isinstance(said, dict) or not (own := said.get(OWN_NAME)):
        return table
    facts = {key: name if key in ALSO_NAMED and value == own else value for key, value in said.items()}
    return {**table, "__metadata__": facts}


def _write(copy: Path, table: dict[str, Any], lora: Path, start: int) -> None:
    """The weights stay where they were, counted from the end of the table, which is filled up to whole 8 bytes."""
    content = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    content += b" " * (-len(content) % 8)
    with lora.open("rb") as source, copy.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        source.seek(start)
        shutil.copyfileobj(source, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())

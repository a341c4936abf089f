"""Files of other trainers, written by the tests themselves, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config.interchange import Imported, import_files

Import = Callable[..., Imported]


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Writes each file (text, bytes, or a table as JSON) under its name and imports them together."""

    def run(preset: str | None = None, **files: Any) -> Imported:
        paths = []
        for name, content in files.items():
            stem, _, ending = name.rpartition("_")
            paths.append(tmp_path / f"{stem}.{ending}")
            if isinstance(content, Mapping):
                content = json.dumps(content, ensure_ascii=False)
            paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return import_files(paths, preset)

    return run


def lora(metadata: Mapping[str, str], *tensors: str) -> bytes:
    """A safetensors file of empty tensors with these names."""
    table: dict[str, Any] = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in tensors}
    header = json.dumps({"__metadata__": dict(metadata), **table}).encode("utf-8")
    return len(header).to_bytes(8, "little") + header

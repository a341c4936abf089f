"""The words of each language: the WebUI's own files and those of the extensions, put together."""

from __future__ import annotations

import json
from pathlib import Path

from modules import scripts, shared

localizations: dict[str, list[str]] = {}


def list_localizations() -> None:
    localizations.clear()
    for file in scripts.list_scripts("localizations", ".json"):
        localizations.setdefault(Path(file.filename).stem, []).append(file.path)


def localization_js() -> str:
    words: dict[str, str] = {}
    for path in localizations.get(shared.opts.localization, []):
        words.update(json.loads(Path(path).read_text(encoding="utf-8")))
    return f"window.localization = {json.dumps(words)}"

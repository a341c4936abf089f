"""Names that every file system takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

LONGEST_NAME = 200  # bytes; leaves room for "-000010.safetensors" and its temporary file within 255
FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)-v(\d{1,9})")


def file_name_fault(name: str) -> str | None:
    """Why ``name`` cannot be a file's name on Windows, macOS and Linux alike, as the end of a sentence, or None."""
    if "/" in name or "\\" in name:
        return "contains a path"
    if FORBIDDEN.search(name):
        return "contains a character that file names may not have"
    if not name.strip(". "):
        return "is empty"
    if name != name.strip() or name.endswith("."):
        return "begins or ends with a space, or ends with a full stop"
    if RESERVED.fullmatch(name):
        return "is a name that Windows keeps for itself"
    return "is too long" if len(name.encode("utf-8", "replace")) > LONGEST_NAME else None


def following(name: str) -> Iterator[str]:
    """The names after this one: zdm -> zdm-v2, zdm-v3 ...; zdm-v2 -> zdm-v3 ..."""
    match = _NUMBERED.fullmatch(name)
    stem, number = (match[1], int(match[2])) if match else (name, 1)
    while True:
        number += 1
        yield f"{stem}-v{number}"

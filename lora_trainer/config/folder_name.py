"""Folder names that say how often their pictures are seen: `10_zunda`."""

from __future__ import annotations

import re

_REPEATS_NAME = re.compile(r"(\d+)_(.*)", re.DOTALL)


def repeats_and_class(name: str) -> tuple[int, str]:
    """What a folder's name says, as sd-scripts reads it; (0, "") where it says nothing."""
    match = _REPEATS_NAME.fullmatch(name)
    return (int(match[1]), match[2].strip()) if match else (0, "")

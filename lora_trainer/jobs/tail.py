"""The end of a log."""

from __future__ import annotations

import os
from pathlib import Path

_BLOCK = 1 << 14


def tail(path: Path, lines: int) -> list[str]:
    """The last `lines` lines of a text in UTF-8, whatever its length; [] where there is no file.

    Of a line that was drawn over, as progress bars do, only what was seen last.
    """
    try:
        with path.open("rb") as file:
            start = file.seek(0, os.SEEK_END)
            text = b""
            while start and text.count(b"\n") <= lines:
                start, end = max(0, start - _BLOCK), start
                file.seek(start)
                text = file.read(end - start) + text
    except FileNotFoundError:
        return []
    shown = text.decode("utf-8", "replace").removesuffix("\n").split("\n") if text else []
    return [line.rstrip("\r").rpartition("\r")[2] for line in shown[max(0, len(shown) - lines) :]]

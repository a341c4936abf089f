"""Which of a model's blocks are meant by a text such as "0-5,8"."""

from __future__ import annotations

import re

RANGE = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?")


def chosen_blocks(text: str, count: int) -> frozenset[int]:
    """The numbers, from 0, that "all", "none", or numbers and ranges with commas name among `count` blocks.

    Raises ValueError with the end of a sentence where the text is something else or names a block that is not there.
    """
    word = text.strip().lower()
    if word in ("all", "none"):
        return frozenset(range(count if word == "all" else 0))
    chosen: set[int] = set()
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError('is not "all", "none", or numbers such as 0-5,8')
        chosen.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    if max(chosen) >= count:
        raise ValueError(f"names block {max(chosen)}, and the last one is {count - 1}")
    return frozenset(chosen)

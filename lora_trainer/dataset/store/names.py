"""Names that every file system takes, and that are one of a kind in a set."""

from __future__ import annotations

import re
import unicodedata

from lora_trainer.config.file_name import FORBIDDEN, RESERVED

# Of 255 bytes, and of Windows' 260 characters for a whole path, the rest is for folders, endings and temporary names.
MOST_BYTES = 120

# Controls, unpaired surrogates and marks that turn the direction of text: a name must be what it looks like. What joins
# letters and emoji (U+200C, U+200D) is no danger.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def readable(text: str) -> str:
    """The text without what is not seen, for a message."""
    return _UNSEEN.sub("", text)


def safe_stem(text: str) -> str:
    """A file's or folder's name close to `text`, in Unicode's form NFC: at most MOST_BYTES of UTF-8, neither hidden nor
    reserved, nothing in it that Windows forbids; "picture" where nothing is left.
    """
    name = FORBIDDEN.sub("_", readable(unicodedata.normalize("NFC", text))).lstrip(". \u200d")
    name = _cut(name, MOST_BYTES)
    return _cut(f"_{name}", MOST_BYTES) if RESERVED.fullmatch(name) else name or "picture"


def stem_key(stem: str) -> str:
    """Equal for names that are one file on some system: in capitals or not, accents written in one way or another."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())


def free_stem(stem: str, taken: set[str]) -> str:
    """The safe stem, or it with _2, _3 ... where its key is in `taken`, to which the result's key is added."""
    stem = free = safe_stem(stem)
    count = 1
    while stem_key(free) in taken:
        count += 1
        free = f"{_cut(stem, MOST_BYTES - len(str(count)) - 1)}_{count}"
    taken.add(stem_key(free))
    return free


def _cut(name: str, most: int) -> str:
    """The beginning of `name` that has at most `most` bytes; no dot or space at its end, which Windows drops."""
    return name.encode()[:most].decode(errors="ignore").rstrip(". \u200d")

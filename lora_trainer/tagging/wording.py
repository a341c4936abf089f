"""What a tagger found, worded as a caption, and put together with the caption that was there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.edits import tag_key

_WORD = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class TagOptions:
    """Thresholds from 0 to 1. `escaped`: brackets are written as `\\(`, as captions with weights need them."""

    threshold: float = 0.35
    character_threshold: float = 0.85
    underscores: bool = False
    excluded: tuple[str, ...] = ()
    escaped: bool = False


def worded(found: Iterable[str], options: TagOptions) -> str:
    """The tags that are not excluded, as a caption."""
    excluded = {tag_key(tag) for tag in options.excluded}
    return ", ".join(_spelt(tag, options) for tag in found if tag_key(tag) not in excluded)


def _spelt(tag: str, options: TagOptions) -> str:
    """`green_hair` -> `green hair`; a face keeps the line between its eyes: `^_^`, `o_o`, `<|>_<|>`."""
    if not options.underscores and _WORD.search(tag):
        tag = tag.replace("_", " ")
    return re.sub(r"([\\()\[\]])", r"\\\1", tag) if options.escaped else tag


def merged(existing: str, found: str, how: str) -> str:
    """The caption to write where there is an existing one and a found one.

    "keep": the existing one, the found one only where there is none; "replace": the found one; "append", "prepend":
    both, of the found one what the existing one has not yet.
    """
    if how == "replace" or not existing.strip():
        return found
    if how == "keep":
        return existing
    known = {tag_key(tag) for tag in tags(existing)}
    new = ", ".join(tag for tag in tags(found) if tag_key(tag) not in known)
    return _joined(existing, new) if how == "append" else _joined(new, existing)


def _joined(first: str, second: str) -> str:
    separator = " " if first.rstrip().endswith((".", "!", "?")) else ", "
    return separator.join(part for part in (first.strip().rstrip(","), second.strip()) if part)

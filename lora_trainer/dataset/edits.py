"""Edits of captions: pure functions from the line that is trained to another one; the store keeps what they give.

Tags are compared by `tag_key` and written as they are found: a caption that an edit has nothing to do in stays as it is
to the last space, the others come out with ", " between their tags. A sentence is a caption of few, long tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Literal, TypeVar

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.captions import are_tags, tags, trained_line, with_trained_line, with_trigger

Edit = Callable[[str], str]
Id = TypeVar("Id", bound=Hashable)


class _Keys(dict[str, str]):
    """Tags' keys, made once: an edit of 10,000 captions asks for 300,000, which `lru_cache` answers half as fast."""

    def __missing__(self, tag: str) -> str:
        if len(self) >= 1 << 16:
            self.clear()
        words = re.sub(r"\\([()\[\]])", r"\1", tag).replace("_", " ").casefold().split()
        key = self[tag] = " ".join(words) or tag
        return key


# What tags are compared by: `green_hair`, `Green  hair` and `green hair` have one key, so have `a \(b\)` and `a (b)`.
tag_key: Callable[[str], str] = _Keys().__getitem__


def remove(unwanted: Iterable[str]) -> Edit:
    keys = _keys(unwanted)
    return _of_tags(lambda found: [tag for tag in found if tag_key(tag) not in keys])


def add(wanted: Iterable[str], at: Literal["start", "end"] = "end") -> Edit:
    """Adds the tags that a caption does not have; those it has stay where they are."""
    keys = {tag_key(tag): tag for tag in _named(wanted)}

    def change(found: list[str]) -> list[str]:
        present = [*map(tag_key, found)]  # a set of 30 takes longer to make than to do without
        missing = [tag for key, tag in keys.items() if key not in present]
        return missing + found if at == "start" else found + missing

    return _of_tags(change)


def replace(old: str, new: str) -> Edit:
    """The new tag, or several with commas between them, in the old one's place; none a second time."""
    (gone,), wanted = _keys([old]), {tag_key(tag): tag for tag in _named(tags(new))}

    def change(found: list[str]) -> list[str]:
        keys = list(map(tag_key, found))
        if gone not in keys:
            return found
        fresh = [tag for key, tag in wanted.items() if key == gone or key not in keys]
        place = keys.index(gone)
        return found[:place] + fresh + [tag for tag, key in zip(found[place:], keys[place:]) if key != gone]

    return _of_tags(change)


def dedupe() -> Edit:
    """Of tags that are the same, the first stays."""

    def change(found: list[str]) -> list[str]:
        first: dict[str, str] = {}
        for tag in found:
            first.setdefault(tag_key(tag), tag)
        return list(first.values())

    return _of_tags(change)


def sort(first: Iterable[str] = ()) -> Edit:
    """By the alphabet, behind the tags `first` (the trigger word's), which stay as they stand. Sentences stay whole."""
    front = set(map(tag_key, first))

    def change(found: list[str]) -> list[str]:
        if _is_sentence(found):
            return found
        kept = [tag for tag in found if tag_key(tag) in front] if front else []
        return kept + sorted([tag for tag in found if tag not in kept] if kept else found, key=tag_key)

    return _of_tags(change)


def put_first(trigger: str) -> Edit:
    """The trigger word in front, once and in this spelling; a sentence that begins with it stays (`with_trigger`)."""
    first = _named(tags(trigger))
    keys, beginning = set(map(tag_key, first)), first[0].casefold()

    def change(found: list[str]) -> list[str]:
        rest = [tag for tag in found if tag_key(tag) not in keys]
        begins = len(rest) == len(found) and found and found[0].casefold().startswith(beginning)
        return found if begins and with_trigger(found[0], trigger) == found[0] else first + rest

    return _of_tags(change)


def edited(texts: Mapping[Id, str], *edits: Edit) -> dict[Id, str]:
    """The whole texts of caption files, edited in their trained line: only those that come out different."""
    changed = {}
    for key, text in texts.items():
        before = line = trained_line(text)
        for edit in edits:
            line = edit(line)
        if line != before:
            changed[key] = with_trained_line(text, line)
    return changed


def _of_tags(change: Callable[[list[str]], list[str]]) -> Edit:
    def edit(line: str) -> str:
        found = tags(line)
        changed = change(found)
        return line if changed == found else ", ".join(changed)

    return edit


def _named(wanted: Iterable[str]) -> list[str]:
    """The tags asked for, stripped; raises BadInput where one is empty, or there is none."""
    named = [tag.strip() for tag in wanted]
    if not named or not all(named):
        raise BadInput(Problem("tag", ", ".join(named), "is empty", "Name a tag."))
    return named


def _keys(wanted: Iterable[str]) -> set[str]:
    return set(map(tag_key, _named(wanted)))


def _is_sentence(found: list[str]) -> bool:
    if not found or ("".join(found).count(" ") <= 2 * len(found) and not found[-1].endswith(".")):
        return False  # three words a tag at most, seen at a glance
    return not are_tags([", ".join(found * 3)])  # three times over: a list of tags may be as short as two

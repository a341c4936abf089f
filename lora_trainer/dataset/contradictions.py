"""Tags of one caption that can hardly all be true of one picture: guesses of a tagger that a person should look at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lora_trainer.dataset.edits import tag_key

_COLOURS = "aqua|black|blonde|blue|brown|gold|golden|green|gray|grey|orange|pink|purple|red|silver|violet|white|yellow"
_PEOPLE = re.compile(r"(\d)\+?(girl|boy|other)s?|multiple (girls|boys|others)")
_COUPLE = {"couple", "hetero", "kiss", "hug", "holding hands", "height difference", "looking at another"}
_SEVERAL_DRAWINGS = {"multiple views", "multiple persona", "comic", "4koma", "reference sheet"}


@dataclass(frozen=True)
class _Fact:
    """Something of which a person or a picture has one: tags that match the pattern with different groups differ."""

    what: str
    pattern: str
    allowed_by: frozenset[str] = frozenset()
    of_person: bool = True  # two people may differ in it


_FACTS = (
    _Fact(
        "eye colour",
        rf"(?:light |dark )?({_COLOURS}) eyes",
        frozenset(("heterochromia", "multicolored eyes", "two-tone eyes", "gradient eyes")),
    ),
    _Fact(
        "hair colour",
        rf"(?:light |dark )?({_COLOURS}) hair",
        frozenset(
            ("multicolored hair", "two-tone hair", "streaked hair", "gradient hair", "split-color hair")
            + ("colored inner hair", "colored tips", "rainbow hair")
        ),
    ),
    _Fact("length of hair", r"(?:very |absurdly )?(short|medium|long) hair"),
    _Fact("mouth", r"(open|closed) mouth"),
    _Fact("posture", r"(standing|sitting|lying)"),
    _Fact("framing", r"(portrait|upper body|cowboy shot|full body)"),
    _Fact("place", r"(indoors|outdoors)", of_person=False),
    _Fact("time of day", r"(day|night)", of_person=False),
    *(_Fact(f"number of {kind}s", rf"(\d\+?){kind}s?", of_person=False) for kind in ("girl", "boy", "other")),
)


def contradictions(found: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
    """(the tags that contradict each other, why in a sentence), for the tags of one caption."""
    keys = {tag_key(tag): tag for tag in found}
    people = [key for key in keys if _PEOPLE.fullmatch(key)]
    several = sum(map(_count, people)) > 1 or not _SEVERAL_DRAWINGS.isdisjoint(keys)
    wrong = []
    for fact, values in _said(keys).items():
        allowed = (several and fact.of_person) or not fact.allowed_by.isdisjoint(keys)
        if len({value for value, _ in values}) > 1 and not allowed:
            said = tuple(keys[key] for _, key in values)
            wrong.append((said, f"{' and '.join(said)} cannot both be true: there is one {fact.what}."))
    if {"1girl", "1boy"} <= keys.keys() and not {"solo", "no humans", *_COUPLE} & keys.keys():
        said = (keys["1girl"], keys["1boy"])
        wrong.append((said, f"{said[0]} and {said[1]}: are there two, or is the tagger not sure of the one there is?"))
    for alone, limit in (("solo", 1), ("no humans", 0)):
        if alone in keys and sum(map(_count, people)) > limit:
            said = (keys[alone], *(keys[key] for key in people))
            wrong.append((said, f"{said[0]} contradicts {' and '.join(said[1:])}: somebody else is there."))
    return wrong


def _said(keys: dict[str, str]) -> dict[_Fact, list[tuple[str, str]]]:
    said: dict[_Fact, list[tuple[str, str]]] = {}
    for key in keys:
        fact, value = _fact(key)
        if fact:
            said.setdefault(fact, []).append((value, key))
    return said


@lru_cache(maxsize=1 << 16)
def _fact(key: str) -> tuple[_Fact | None, str]:
    """What a tag is about, and the value it gives it."""
    for fact in _FACTS:
        if match := re.fullmatch(fact.pattern, key):
            return fact, match[1].replace("gray", "grey")
    return None, ""


def _count(people: str) -> int:
    """How many people `1girl`, `6+boys` or `multiple girls` are, at least."""
    match = _PEOPLE.fullmatch(people)
    return int(match[1] or 2) if match else 0

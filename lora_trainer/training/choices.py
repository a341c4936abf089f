"""Finding one of several named things, or saying which name was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from lora_trainer.config import BadInput, Problem

Thing = TypeVar("Thing")


def chosen(things: Mapping[str, Thing], name: str, setting: str) -> Thing:
    """things[name]; raises BadInput naming the nearest known name."""
    if name not in things:
        raise BadInput(Problem(setting, name, "is not known", suggestion(name, things)))
    return things[name]


def suggestion(name: str, known: Iterable[str]) -> str:
    """'Use Lion, or one of AdamW, ...' with the nearest of the known names first."""
    names = list(known)
    by_lower_case = {each.lower(): each for each in names}
    near = get_close_matches(name.lower(), by_lower_case, n=1)
    listed = ", ".join(names)
    return f"Did you mean {by_lower_case[near[0]]}? There are: {listed}." if near else f"Use one of: {listed}."

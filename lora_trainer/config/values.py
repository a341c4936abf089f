"""One value of one setting: brought to its type, read from text, checked against its bounds, and described."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from lora_trainer.config.setting import Setting

BOOLEANS = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
SIZE = re.compile(r"\s*(\d+)(?:\s*[x×,]\s*(\d+))?\s*")
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
SINGULAR = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
PLURAL = {int: "whole numbers", float: "numbers", str: "texts"}


def convert(value: Any, row: Setting) -> Any:
    """``value``, as TOML or JSON gives it, in the first of the setting's types that it fits.

    A whole float fits an int and an int a float; a size may be "512x768" or one number for a square, a list of
    numbers may be text with commas, and a lone text is a list of one. Raises ValueError if nothing fits.
    """
    for kind in row.types:
        try:
            return _as_kind(value, kind)
        except ValueError:
            continue
    raise ValueError(f"must be {' or '.join(map(wanted, row.types))}, not {named(value)}")


def parse(text: str, row: Setting) -> Any:
    """What ``convert`` takes, from text typed without TOML's quotes: ``true``, ``1e-4``, ``512x768``, plain words.

    Nothing or "none" is None where the setting may be empty; a list may be written as in JSON, one of choices with
    commas.
    """
    word = text.strip().lower()
    if row.optional and word in ("", "none"):
        return None
    if bool in row.types and word in BOOLEANS:
        return BOOLEANS[word]
    if row.choices and get_origin(row.type) is tuple and word[:1] != "[":
        return [part for part in map(str.strip, text.split(",")) if part]
    readers = [kind for kind in row.types if kind in (int, float)] + [json.loads] * (word[:1] == "[")
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return text


def fault(value: Any, row: Setting) -> str | None:
    """What is wrong with a value of the right type, as the end of a sentence, or None if it may stand."""
    if row.required and not value:
        return "is missing"
    items = value if isinstance(value, tuple) else (value,)
    if row.choices and (strange := [item for item in items if item not in row.choices]):
        return "is not one of the choices" if strange == [value] else f"has {_listed(strange)}, which is no choice"
    return next(filter(None, (_item_fault(item, row) for item in items)), None)


def described(row: Setting) -> str:
    """What a setting accepts, in words: "a whole number from 1 to 1024"."""
    if row.choices:
        return f"{'any' if get_origin(row.type) is tuple else 'one'} of {_listed(row.choices)}"
    if row.path:
        return "the path of a file or folder"
    multiples = f", in multiples of {row.multiple_of}" if row.multiple_of else ""
    return " or ".join(map(wanted, row.types)) + limits(row) + multiples


def wanted(kind: Any) -> str:
    """A type in words."""
    if get_origin(kind) is not tuple:
        return SINGULAR[kind]
    first, second = get_args(kind)
    if second is Ellipsis:
        return f"a list of {PLURAL.get(first, 'folders')}"
    return "a width and a height such as [512, 768]" if first is int else f"two {PLURAL[first]}"


def _listed(choices: Iterable[Any]) -> str:
    return ", ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)


def limits(row: Setting) -> str:
    """The bounds in words, with a space before them; empty without bounds."""
    if row.minimum is not None and row.maximum is not None:
        return f" from {row.minimum} to {row.maximum}"
    if row.minimum is not None and row.below is not None:
        return f" from {row.minimum} to below {row.below}"
    if row.minimum is not None:
        return f" of at least {row.minimum}"
    return f" above {row.above}" if row.above is not None else ""


def named(value: Any) -> str:
    """The kind of thing that was found, in words."""
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    names = {str: "text", int: "a number", float: "a number with a fraction", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


def _as_kind(value: Any, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return _as_tuple(value, get_args(kind))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ValueError


def _as_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if kinds == (int, int) and isinstance(value, int):
        value = (value, value)
    if isinstance(value, str):
        value = _split(value, kinds)
    if not isinstance(value, (list, tuple)) or (Ellipsis not in kinds and len(value) != len(kinds)):
        raise ValueError
    return tuple(_as_kind(item, kinds[0]) for item in value)


def _split(text: str, kinds: tuple[Any, ...]) -> list[Any]:
    if kinds[0] is str:
        return [text] if text else []
    size = SIZE.fullmatch(text) if kinds == (int, int) else None
    return [int(size[1]), int(size[2] or size[1])] if size else [float(part) for part in text.split(",")]


def _item_fault(item: Any, row: Setting) -> str | None:
    if isinstance(item, str):
        return "contains a character that no file can hold" if UNSTORABLE.search(item) else None
    return _number_fault(item, row) if isinstance(item, (int, float)) and not isinstance(item, bool) else None


def _number_fault(number: float, row: Setting) -> str | None:
    bounds = {
        "must be a finite number": not math.isfinite(number),
        f"must be at least {row.minimum}": row.minimum is not None and number < row.minimum,
        f"must be above {row.above}": row.above is not None and number <= row.above,
        f"must be at most {row.maximum}": row.maximum is not None and number > row.maximum,
        f"must be below {row.below}": row.below is not None and number >= row.below,
        f"must be a multiple of {row.multiple_of}": row.multiple_of is not None and bool(number % row.multiple_of),
    }
    return next((problem for problem, broken in bounds.items() if broken), None)

"""The arguments that somebody gave to sd-scripts, with its defaults behind them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from lora_trainer.config.interchange.facts import DEFAULTS

LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")  # of name=value
NO_BLOCK = dict.fromkeys(("train_double_block_indices", "train_single_block_indices"), "none")  # is not: not given


class Given:
    """Reads arguments and remembers which were read; an entry of `network_args` is called `network_args.NAME`.

    `family`: the base's, as far as anything says it, else "auto". `spelled`: how the file calls an argument.
    """

    def __init__(self, arguments: Mapping[str, Any], family: str, spelled: Mapping[str, str], empty: tuple[str, ...]):
        self.values = dict(arguments)
        self.family, self.spelled, self.empty = family, spelled, empty
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Whether it was given; what was given is read by this."""
        self._read.add(name)
        return name in self.values

    def get(self, name: str) -> Any:
        """What was given, or else sd-scripts' own default."""
        return self.values[name] if name in self else DEFAULTS.get(name)

    def number(self, name: str) -> float:
        """A number, however it is written; 0 where there is none."""
        value = self.get(name)
        return float(value) if is_number(value) else 0.0

    def on(self, name: str) -> bool:
        """Whether a switch is on, however that is written."""
        return str(self.get(name)).strip().lower() in ("true", "1", "yes", "on")

    def unread(self) -> Iterator[tuple[str, Any]]:
        yield from ((name, value) for name, value in self.values.items() if name not in self._read)


def given(
    arguments: Mapping[str, Any], family: str = "auto", spelled: Mapping[str, str] = MappingProxyType({})
) -> Given:
    """The arguments without empty ones, with `network_args` taken apart."""
    filled = {name: value for name, value in arguments.items() if not _is_empty(value)}
    for argument in pairs(filled.pop("network_args", ())):
        name, _, value = argument.partition("=")
        if NO_BLOCK.get(name.strip()) == value.strip() or not _is_empty(value.strip()):
            filled[f"network_args.{name.strip()}"] = value.strip().strip("\"'")
    return Given(filled, family, spelled, tuple(name for name, value in arguments.items() if _is_empty(value)))


def is_number(value: Any) -> bool:
    """Whether it is one, or a text that says one."""
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def pairs(value: Any) -> list[str]:
    """A list of name=value, which may also be written as one text or as a table."""
    if isinstance(value, Mapping):
        return [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, str):
        return split(value)
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else [str(value)]


def split(text: str) -> list[str]:
    """A text's words, with quotes around what holds spaces; a backslash is a letter, as in Windows paths."""
    words = shlex.shlex(text, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters, words.escape = True, "", ""
    try:
        return list(words)
    except ValueError:  # a quote left open
        return text.split()


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and value.strip().lower() in ("", "none", "null"))

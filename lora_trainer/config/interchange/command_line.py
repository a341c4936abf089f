"""Launch lines: sd-scripts' arguments as they are typed, in .bat, .ps1 and .sh files too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

SCRIPT = re.compile(r".*\.py", re.IGNORECASE)
SEVERAL = (
    "network_args",
    "optimizer_args",
    "lr_scheduler_args",
    "text_encoder_lr",
    "base_weights",
    "base_weights_multiplier",
)


@dataclass(frozen=True)
class Launch:
    """One command: the script's file name ("" if none is named), its arguments, and the options before it."""

    script: str
    arguments: dict[str, Any]
    before: tuple[str, ...]


def launch_of(words: Sequence[str]) -> Launch:
    script = next((i for i, word in enumerate(words) if SCRIPT.fullmatch(word)), None)
    first = 0 if script is None else script + 1
    before = tuple(arguments_of(words[:first]))
    name = "" if script is None else PureWindowsPath(words[script]).name
    return Launch(name, arguments_of(words[first:]), before)


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """`--name value`, `--name=value`, `--switch`, and lists where an argument takes several values."""
    arguments: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            arguments[name] = [value] if equals else []
        elif name:
            arguments[name].append(word)
    return {name: _value(name, values) for name, values in arguments.items()}


def _value(name: str, values: list[str]) -> Any:
    if name in SEVERAL:
        return values
    return " ".join(values) if values else True

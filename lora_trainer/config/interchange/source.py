"""What a file says, in sd-scripts' words, whichever program wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_trainer.config.interchange.report import Line


@dataclass(frozen=True)
class Source:
    """Arguments of sd-scripts and its dataset config, not checked yet.

    `family`: what is said of the base, else "auto"; `family_by`: what says so. `whole`: whether everything is
    said, so that sd-scripts' default stands for what is left out; None finds out from what is said.
    `spelled`: how the file calls an argument, where that is another name; `changed` and `unsupported`: what is known
    already; `left`: names that say nothing. `settings`: values of our own settings that sd-scripts has no word for.
    `total_steps`: how many optimizer steps the run had, where that is known.
    """

    arguments: Mapping[str, Any]
    dataset: Mapping[str, Any] | None = None
    family: str = "auto"
    family_by: str = ""
    whole: bool | None = None
    spelled: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[Line, ...] = ()
    unsupported: tuple[Line, ...] = ()
    left: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    total_steps: int | None = None

"""Preview prompts as sd-scripts writes them: one a line, with options behind it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

OPTION = re.compile(r"\s--(\w+)\s+")
SETTING = {
    "n": "negative_prompt", "s": "preview_steps", "l": "preview_cfg", "g": "preview_guidance", "d": "preview_seed",
}  # fmt: skip


def preview_settings(lines: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    """The settings of previews, their options as in the first line, and the names of options that are not known.

    An option that a later line says otherwise is among those, for all previews share theirs.
    """
    prompts: list[str] = []
    first: dict[str, str] = {}
    unknown: set[str] = set()
    for line in (str(line).strip() for line in lines):
        if not line or line.startswith("#"):
            continue
        prompt, *rest = OPTION.split(f"{line} ")
        prompts.append(prompt.strip())
        options = {name.lower(): value.strip() for name, value in zip(rest[::2], rest[1::2])}
        first = first or options
        unknown |= {
            name for name, value in options.items() if name not in (*SETTING, "w", "h") or first.get(name) != value
        }
    values: dict[str, Any] = {SETTING[name]: value for name, value in first.items() if name in SETTING}
    if {"w", "h"} <= first.keys():
        values["preview_size"] = f"{first['w']},{first['h']}"
    return {"preview_prompts": prompts, **values} if prompts else {}, unknown


def prompt_line(prompt: str, negative: str, size: tuple[int, int], seed: int, steps: int, strength: str) -> str:
    """One preview in a line; `strength`: "l 7", a CFG scale, or "g 3.5", Flux's guidance."""
    options = f"--w {size[0]} --h {size[1]} --d {seed} --s {steps} --{strength}"
    return f"{prompt} --n {negative} {options}" if negative else f"{prompt} {options}"

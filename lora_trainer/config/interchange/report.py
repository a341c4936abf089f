"""What became of each value on its way from one trainer's words into another's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """`source`: what stood there, "" where nothing did; `result`: what it became; `reason`: why, or what is missing."""

    source: str
    result: str = ""
    reason: str = ""

    def __str__(self) -> str:
        change = " -> ".join(part for part in (self.source, self.result) if part)
        return f"{change}: {self.reason}" if self.reason else change


@dataclass
class Report:
    """Three lists, and the names of what stood at its default or makes no difference to the LoRA."""

    taken: list[Line] = field(default_factory=list)
    changed: list[Line] = field(default_factory=list)
    unsupported: list[Line] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """As a person reads it."""
        titles = {"Taken": self.taken, "Changed": self.changed, "Not supported": self.unsupported}
        for title, entries in titles.items():
            if entries:
                yield f"{title} ({len(entries)}):"
                yield from (f"  {line}" for line in entries)
        if self.left:
            yield f"Left at its default or without effect on the LoRA ({len(self.left)}): {', '.join(self.left)}"


def written(values: Mapping[str, Any]) -> str:
    """Names and values on one line: `a = 1, b = "c"`."""
    return ", ".join(f"{name} = {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in values.items())

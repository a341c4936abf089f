"""A listener that keeps what a run tells."""

from __future__ import annotations

from typing import Any


class Heard:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, /, **facts: Any) -> None:
        self.events.append((kind, facts))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.events if name == kind]

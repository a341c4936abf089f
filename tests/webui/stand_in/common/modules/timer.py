"""What the start takes: one entry a part, and `a/b` for parts of parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Timer:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.start, self.base, self.records, self.total = time.time(), "", {}, 0.0

    def record(self, name: str) -> None:
        now = time.time()
        took, self.start = now - self.start, now
        self.records[self.base + name] = self.records.get(self.base + name, 0) + took
        self.total += took

    @contextmanager
    def subcategory(self, name: str) -> Iterator[None]:
        began, outer = time.time(), self.base
        self.base = f"{outer}{name}/"
        yield
        self.base = outer
        self.records[outer + name] = self.records.get(outer + name, 0) + time.time() - began
        self.record(name)

    def summary(self) -> str:
        parts = ", ".join(
            f"{name}: {took:.1f}s" for name, took in self.records.items() if took >= 0.1 and "/" not in name
        )
        return f"{self.total:.1f}s" + (f" ({parts})" if parts else "")

    def dump(self) -> dict[str, Any]:
        return {"total": self.total, "records": self.records}


startup_timer = Timer()
startup_record: dict[str, Any] | None = None

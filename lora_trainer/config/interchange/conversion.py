"""What a conversion between a setting and sd-scripts' arguments may say besides the value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Changed:
    """A value that is not quite what stood there; `reason` is the end of a sentence without its full stop."""

    value: Any
    reason: str


class Unsupported(Exception):
    """The other side has nothing like it; the message says what will be missing, without a full stop."""

"""There is no GPU here."""

from __future__ import annotations

device, cpu = "cuda", "cpu"


def torch_gc() -> None:
    """Nothing of torch is here."""

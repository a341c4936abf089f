"""What is on the GPU."""

from __future__ import annotations

current_loaded_models: list[object] = []


def unload_all_models() -> None:
    current_loaded_models.clear()


def soft_empty_cache() -> None:
    """There is no GPU here."""

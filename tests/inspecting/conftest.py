"""The small base models and the files of zeros that the families' tests use."""

from __future__ import annotations

from tests.training.families.conftest import small, write

__all__ = ["small", "write"]

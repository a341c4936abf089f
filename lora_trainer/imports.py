"""Importing a library without what it would load in passing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# diffusers and transformers look for these, and import them with a second's worth of torch's compiler where they are
# installed. Nothing here asks those libraries for what they do with them.
UNUSED = ("bitsandbytes", "peft")


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """While open, `packages` that have not been imported yet count as not installed.

    A None in `sys.modules` is Python's own way to say so: https://docs.python.org/3/reference/import.html
    """
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]

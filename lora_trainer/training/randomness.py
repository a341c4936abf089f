"""Every draw of a run is a function of its seed and of the place where it happens.

No draw depends on how many came before it. So a run that was killed and goes on, a run on two machines, and a run with
other batch sizes see the same noise for the same picture at the same place.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

WHOLE = (0, 1, 1)
_part = WHOLE  # not by thread: a checkpointed layer is computed again in a thread of the backward pass


def seed_for(*place: object) -> int:
    """A 63-bit seed for a place such as `(seed, "noise", epoch, batch, position)`."""
    text = "/".join(str(part) for part in place)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") >> 1


def generator_for(*place: object) -> torch.Generator:
    """A CPU generator for a place; draws are made on the CPU so that they are the same whatever the device."""
    return torch.Generator().manual_seed(seed_for(*place))


def random_for(*place: object) -> random.Random:
    return random.Random(seed_for(*place))


@contextmanager
def drawn_as_part(first: int, count: int, whole: int) -> Iterator[None]:
    """While open, `draw_rows` draws for samples `first` to `first + count` of a batch of `whole`."""
    global _part
    _part = WHOLE if count == whole else (first, count, whole)
    try:
        yield
    finally:
        _part = WHOLE


def is_part() -> bool:
    return _part != WHOLE


def draw_rows(rows: int, draw: Callable[[int], Tensor]) -> Tensor:
    """`rows` rows of a draw, each sample having as many: where a part of a batch is computed, its rows of the whole's.

    `draw(count)` gives `count` rows. So what a layer leaves out does not depend on how many samples are computed at
    once.
    """
    first, count, whole = _part
    each = rows // count
    return draw(each * whole)[each * first : each * first + rows]

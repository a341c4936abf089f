"""Every draw of a run is a function of its seed and of the place where it happens.

No draw depends on how many came before it. So a run that was killed and goes on, a run on two machines, and a run with
other batch sizes see the same noise for the same picture at the same place.
"""

from __future__ import annotations

import hashlib
import random

import torch


def seed_for(*place: object) -> int:
    """A 63-bit seed for a place such as `(seed, "noise", epoch, batch, position)`."""
    text = "/".join(str(part) for part in place)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big") >> 1


def generator_for(*place: object) -> torch.Generator:
    """A CPU generator for a place; draws are made on the CPU so that they are the same whatever the device."""
    return torch.Generator().manual_seed(seed_for(*place))


def random_for(*place: object) -> random.Random:
    return random.Random(seed_for(*place))

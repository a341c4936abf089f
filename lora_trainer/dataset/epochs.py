"""Which pictures make up which batch of an epoch."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lora_trainer.dataset.buckets import Placement, Size
from lora_trainer.dataset.folders import Picture

Batch = tuple[int, ...]  # indices of pictures


def plan_epoch(
    pictures: Sequence[Picture], placements: Sequence[Placement], batch_size: int, seed: int, epoch: int
) -> tuple[Batch, ...]:
    """The epoch's batches of picture indices, at most `batch_size` of one bucket each, in a drawn order.

    Each picture comes as often as `repeats_of` says. The order depends on (seed, epoch) alone: not on what was drawn
    before, and not on the global random state.
    """
    rng = random.Random(f"{seed} {epoch}")  # a text, so that neighbouring seeds and epochs share no order
    batches: list[Batch] = []
    for indices in _by_bucket(pictures, placements).values():
        rng.shuffle(indices)
        batches += [tuple(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
    rng.shuffle(batches)
    return tuple(batches)


def steps_per_epoch(pictures: Sequence[Picture], placements: Sequence[Placement], batch_size: int) -> int:
    """How many batches an epoch has; the last of each bucket may be smaller."""
    return sum(-(-len(indices) // batch_size) for indices in _by_bucket(pictures, placements).values())


def repeats_of(pictures: Sequence[Picture]) -> tuple[int, ...]:
    """How often each picture comes in an epoch: its subset's repeats; for regularisation, sd-scripts' rule.

    As many regularisation pictures are seen as others: taken in turn with their own repeats until the number is
    reached, so that the last may be unused; where they are too few, each comes once more in turn.
    """
    counts = [0 if picture.subset.is_regularisation else _repeats(picture) for picture in pictures]
    wanted = sum(counts)
    regularising = [index for index, picture in enumerate(pictures) if picture.subset.is_regularisation]
    for index in regularising:
        if wanted <= 0:
            break
        counts[index] = _repeats(pictures[index])
        wanted -= counts[index]
    if regularising and wanted > 0:
        rounds, extra = divmod(wanted, len(regularising))
        for place, index in enumerate(regularising):
            counts[index] += rounds + (place < extra)
    return tuple(counts)


def _repeats(picture: Picture) -> int:
    assert picture.subset.repeats is not None, "find_pictures has resolved every subset"
    return picture.subset.repeats


def _by_bucket(pictures: Sequence[Picture], placements: Sequence[Placement]) -> dict[Size, list[int]]:
    """Picture indices, repeats written out, by bucket in ascending order of its size."""
    buckets: dict[Size, list[int]] = {bucket: [] for bucket in sorted({placement.bucket for placement in placements})}
    for index, (placement, count) in enumerate(zip(placements, repeats_of(pictures), strict=True)):
        buckets[placement.bucket] += [index] * count
    return buckets

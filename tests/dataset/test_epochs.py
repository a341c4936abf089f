from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import Subset
from lora_trainer.dataset.buckets import Placement
from lora_trainer.dataset.epochs import plan_epoch, repeats_of, steps_per_epoch
from lora_trainer.dataset.folders import Picture

BUCKETS = ((64, 64), (64, 128), (128, 64))


def pictures_of(*repeats: int, regularisation: tuple[int, ...] = ()) -> list[Picture]:
    subsets = [Subset("f", repeats=count) for count in repeats]
    subsets += [Subset("r", repeats=count, is_regularisation=True) for count in regularisation]
    return [Picture(Path(f"{i}.png"), 64, 64, "", subset, i, (0, 0)) for i, subset in enumerate(subsets)]


def placed(buckets: list[tuple[int, int]]) -> list[Placement]:
    return [Placement(bucket, bucket, (0, 0, *bucket)) for bucket in buckets]


sets = st.lists(st.tuples(st.integers(1, 5), st.sampled_from(BUCKETS)), min_size=1, max_size=12)


@given(sets, st.integers(1, 5), st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_each_picture_comes_exactly_as_often_as_stated(
    rows: list[tuple[int, tuple[int, int]]], batch_size: int, seed: int, epoch: int
) -> None:
    pictures, placements = pictures_of(*[count for count, _ in rows]), placed([bucket for _, bucket in rows])
    plan = plan_epoch(pictures, placements, batch_size, seed, epoch)
    assert Counter(index for batch in plan for index in batch) == dict(enumerate(count for count, _ in rows))
    assert len(plan) == steps_per_epoch(pictures, placements, batch_size)
    assert all(len({placements[index].bucket for index in batch}) == 1 for batch in plan)
    short = Counter(placements[batch[0]].bucket for batch in plan if len(batch) < batch_size)
    assert all(1 <= len(batch) <= batch_size for batch in plan)
    assert all(count == 1 for count in short.values())  # only the last of a bucket may be smaller


def test_order_depends_on_seed_and_epoch_alone() -> None:
    pictures, placements = pictures_of(*[2] * 10), placed(list(BUCKETS) * 3 + [BUCKETS[0]])
    state = random.getstate()
    plan = plan_epoch(pictures, placements, 2, 7, 1)
    assert random.getstate() == state
    random.seed(99)
    assert plan_epoch(pictures, placements, 2, 7, 1) == plan
    others = [plan_epoch(pictures, placements, 2, seed, epoch) for seed, epoch in ((7, 2), (8, 1), (6, 2))]
    assert len({plan, *others}) == 4


def test_the_draw_is_the_same_in_every_python() -> None:
    """Written down once: a resumed run on another version must go on in the same order."""
    plan = plan_epoch(pictures_of(1, 1, 1, 1, 1), placed([BUCKETS[0]] * 5), 2, 42, 3)
    assert plan == ((0, 3), (2,), (1, 4))


def test_steps_are_counted_by_bucket() -> None:
    pictures, placements = pictures_of(3, 2, 1), placed([BUCKETS[0], BUCKETS[0], BUCKETS[1]])
    assert steps_per_epoch(pictures, placements, 2) == 3 + 1


@pytest.mark.parametrize(
    ("repeats", "regularisation", "expected"),
    [
        ((10, 10), (1, 1, 1), (7, 7, 6)),  # too few: each once more in turn
        ((2, 1), (2, 2, 2), (2, 2, 0)),  # the second reaches the number, the third is unused
        ((1,), (5, 5), (5, 0)),
        ((4, 4), (4, 4), (4, 4)),
        ((3, 3), (), ()),
    ],
)
def test_regularisation_pictures_are_balanced_as_by_sd_scripts(
    repeats: tuple[int, ...], regularisation: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert repeats_of(pictures_of(*repeats, regularisation=regularisation)) == repeats + expected


def test_unused_pictures_come_in_no_batch() -> None:
    pictures = pictures_of(1, regularisation=(1, 1))
    plan = plan_epoch(pictures, placed([BUCKETS[0], BUCKETS[0], BUCKETS[1]]), 4, 0, 1)
    assert sorted(index for batch in plan for index in batch) == [0, 1]

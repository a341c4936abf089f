from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import SETTINGS, Problem
from lora_trainer.dataset.ahead import MOST_THREADS
from lora_trainer.jobs.stops import Stop
from lora_trainer.tagging.captioning import caption_all
from lora_trainer.tagging.taggers import TAGGERS


class Levels:
    """A tagger whose captions are the pictures' grey levels, and which counts what passes through it."""

    def __init__(self, batch_size: int = 3) -> None:
        self.batch_size = batch_size
        self.batches: list[int] = []
        self.prepared = 0
        self._lock = threading.Lock()

    def prepare(self, image: Image.Image) -> np.ndarray:
        with self._lock:
            self.prepared += 1
        return np.array(image.getpixel((0, 0)))

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        self.batches.append(len(pixels))
        return [str(level[0]) for level in pixels]


@pytest.fixture
def greys(tmp_path: Path) -> list[tuple[int, Path]]:
    """Ten pictures, of grey level 0, 10, 20 ..., by number."""
    for number in range(10):
        Image.new("RGB", (16, 16), (number * 10,) * 3).save(tmp_path / f"{number}.png")
    return [(number, tmp_path / f"{number}.png") for number in range(10)]


def test_there_is_a_tagger_for_every_choice_of_the_setting() -> None:
    assert {"none", *TAGGERS} == set(SETTINGS["tagger"].choices)


def test_captions_come_in_the_order_given_and_in_batches(greys: list[tuple[int, Path]]) -> None:
    tagger = Levels()
    mixed = [greys[place] for place in (7, 1, 9, 0, 3, 3, 8)]
    assert list(caption_all(tagger, mixed)) == [(number, str(number * 10)) for number, _ in mixed]
    assert tagger.batches == [3, 3, 1]


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(greys: list[tuple[int, Path]]) -> None:
    greys[1][1].write_bytes(b"")
    greys[4][1].write_bytes(greys[4][1].read_bytes()[:60])
    greys[5][1].unlink()
    found = dict(caption_all(Levels(batch_size=1), greys))
    assert list(found) == list(range(10))
    problems = {number: str(problem) for number, problem in found.items() if isinstance(problem, Problem)}
    assert problems.keys() == {1, 4, 5}
    assert "1.png" in problems[1] and "is an empty file" in problems[1]
    assert all(found[number] == str(number * 10) for number in found.keys() - problems.keys())


def test_a_batch_of_unreadable_pictures_needs_no_model(greys: list[tuple[int, Path]]) -> None:
    tagger = Levels()
    for _, path in greys[:3]:
        path.write_bytes(b"no picture")
    assert len(list(caption_all(tagger, greys[:4]))) == 4
    assert tagger.batches == [1]


def test_a_stop_takes_effect_after_the_batch(greys: list[tuple[int, Path]]) -> None:
    stop, tagger, found = Stop(), Levels(), []
    for number, _ in caption_all(tagger, greys, stop):
        found.append(number)
        stop.ask()
    assert found == [0, 1, 2]
    assert tagger.batches == [3]
    assert list(caption_all(tagger, greys, stop)) == []


def test_no_more_is_read_than_the_next_batches(greys: list[tuple[int, Path]]) -> None:
    taken = 0

    def endless() -> Iterator[tuple[int, Path]]:
        nonlocal taken
        while True:
            taken += 1
            yield greys[taken % 10]

    tagger = Levels()
    captions = caption_all(tagger, endless())
    for _ in range(20):
        next(captions)
    captions.close()  # type: ignore[attr-defined]
    most = 21 + 2 * tagger.batch_size + MOST_THREADS
    assert taken <= most
    assert tagger.prepared <= taken


def test_no_thread_is_left(greys: list[tuple[int, Path]]) -> None:
    before = threading.active_count()
    captions = caption_all(Levels(), greys)
    next(captions)
    assert threading.active_count() > before
    captions.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_no_pictures_are_no_captions() -> None:
    assert list(caption_all(Levels(), [])) == []

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.demo import sprites
from lora_trainer.demo.mascots import (
    CONTROL,
    HELD_BACK_SCENES,
    MASCOT,
    TRAINING_SCENES,
    Mascot,
    caption,
    picture,
    write_training_set,
)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=float)


def test_seven_pictures_and_sixteen_held_back_scenes() -> None:
    assert len(set(TRAINING_SCENES)) == 7
    assert len(set(HELD_BACK_SCENES)) == 16
    assert not set(TRAINING_SCENES) & set(HELD_BACK_SCENES)


def test_no_held_back_picture_is_a_training_picture() -> None:
    for scene in HELD_BACK_SCENES:
        for known in TRAINING_SCENES:
            assert np.abs(pixels(picture(MASCOT, scene)) - pixels(picture(MASCOT, known))).mean() > 2


def test_the_set_in_the_repository_is_what_is_drawn() -> None:
    for number, scene in enumerate(TRAINING_SCENES, start=1):
        stored = MASCOT.folder / f"{number:02}.png"
        # Pillow versions differ by a little at antialiased edges.
        assert np.abs(pixels(Image.open(stored)) - pixels(picture(MASCOT, scene))).mean() < 1
        assert stored.with_suffix(".txt").read_text(encoding="utf-8").strip() == caption(MASCOT, scene)
    assert len(list(MASCOT.folder.iterdir())) == 14


def test_the_set_can_be_drawn_anywhere(tmp_path: Path) -> None:
    write_training_set(CONTROL, tmp_path / "10_quimby")
    names = sorted(path.name for path in (tmp_path / "10_quimby").iterdir())
    assert names == [f"{number:02}.{kind}" for number in range(1, 8) for kind in ("png", "txt")]


@pytest.mark.parametrize("mascot", [MASCOT, CONTROL])
def test_a_caption_is_the_trigger_and_what_varies(mascot: Mascot) -> None:
    known = set(sprites.all_tags())
    for scene in TRAINING_SCENES + HELD_BACK_SCENES:
        first, *rest = caption(mascot, scene).split(", ")
        assert first == mascot.trigger
        assert rest and set(rest) <= known
        assert not any(tag.endswith((" fur", " ears")) for tag in rest)


@pytest.mark.parametrize("mascot", [MASCOT, CONTROL])
def test_the_base_has_never_seen_the_mascot(mascot: Mascot) -> None:
    assert mascot.fur not in sprites.FURS.values()
    assert mascot.ears not in sprites.EARS
    assert not any(mascot.trigger in tag for tag in sprites.all_tags())


def test_the_two_mascots_differ_in_every_scene() -> None:
    for scene in HELD_BACK_SCENES:
        assert np.abs(pixels(picture(MASCOT, scene)) - pixels(picture(CONTROL, scene))).mean() > 8

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.tagging.wd import CHARACTER, GENERAL, WdTagger, load, read_tags, white_square
from lora_trainer.tagging.wording import TagOptions
from tests.tagging.onnx_files import Patch, logit, save, selected_tags, tag_model

NEVER = -100.0
SIDE = 448
BLUE, GREEN, RED = range(3)  # the order in which the models were trained
ROWS = list(csv.DictReader(selected_tags().read_text(encoding="utf-8").splitlines()))
INDEX = {row["name"]: number for number, row in enumerate(ROWS)}

Make = Callable[..., WdTagger]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A tagger with the real tags, of which those named have a sure probability, or look at patches of the picture."""

    def made(
        sure: Mapping[str, float] | None = None,
        looking: Mapping[str, tuple[float, Mapping[Patch, float]]] | None = None,
        batch: int | str = "batch",
        **options: object,
    ) -> WdTagger:
        biases = np.full(len(ROWS), NEVER)
        weights = {}
        for name, probability in (sure or {}).items():
            biases[INDEX[name]] = logit(probability)
        for name, (bias, patches) in (looking or {}).items():
            biases[INDEX[name]], weights[INDEX[name]] = bias, patches
        tag_model(tmp_path / "model.onnx", SIDE, biases, weights, batch)
        shutil.copy(selected_tags(), tmp_path / "selected_tags.csv")
        return load(tmp_path, TagOptions(**options), pytest.fail)  # type: ignore[arg-type]

    return made


def captions(tagger: WdTagger, *images: Image.Image) -> list[str]:
    found: list[str] = []
    for start in range(0, len(images), tagger.batch_size):
        found += tagger.caption([tagger.prepare(image) for image in images[start : start + tagger.batch_size]])
    return found


def plain(colour: str | tuple[int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_the_real_list_has_10861_tags_of_three_categories() -> None:
    tags = read_tags(selected_tags())
    assert len(tags) == 10_861
    assert [sum(tag.category == category for tag in tags) for category in (GENERAL, CHARACTER, 9)] == [8106, 2751, 4]
    assert [tag.name for tag in tags[:5]] == ["general", "sensitive", "questionable", "explicit", "1girl"]


def test_thresholds_characters_first_then_the_surest_and_no_rating(make: Make) -> None:
    tagger = make({
        "general": 0.99, "explicit": 0.99,
        "1girl": 0.9, "solo": 0.36, "long_hair": 0.34, "smile": 0.7,
        "hatsune_miku": 0.86, "kagamine_rin": 0.84, "megurine_luka": 0.95,
    })  # fmt: skip
    assert captions(tagger, plain("white")) == ["megurine luka, hatsune miku, 1girl, smile, solo"]


def test_thresholds_are_the_options(make: Make) -> None:
    sure = {"1girl": 0.9, "solo": 0.6, "hatsune_miku": 0.6}
    assert captions(make(sure, threshold=0.7, character_threshold=0.5), plain("white")) == ["hatsune miku, 1girl"]
    assert captions(make(sure, threshold=1.0, character_threshold=1.0), plain("white")) == [""]


def test_colours_come_in_blue_green_red(make: Make) -> None:
    over_half = {
        name: (-60, {(1, 1, channel): 60 / 128})
        for name, channel in {"blue_theme": BLUE, "green_theme": GREEN, "red_theme": RED}.items()
    }
    tagger = make(looking=over_half)
    found = captions(tagger, plain((0, 0, 255)), plain((255, 0, 0)), plain((0, 255, 0)), plain((255, 255, 0)))
    assert found == ["blue theme", "red theme", "green theme", "green theme, red theme"]


def test_levels_come_in_from_0_to_255(make: Make) -> None:
    tagger = make(looking={"grey_theme": (-100.5, {(2, 2, GREEN): 1.0})}, threshold=0.5)
    assert captions(tagger, plain((100,) * 3), plain((101,) * 3)) == ["", "grey theme"]


def test_rows_and_columns_are_not_turned(make: Make) -> None:
    tagger = make(looking={"dark": (60, {(0, 3, GREEN): -1.0}), "light": (-60, {(3, 0, GREEN): 1.0})})
    picture = plain("white", (448, 448))
    picture.paste("black", (0, 336, 448, 448))  # the lowest row
    picture.paste("black", (0, 0, 112, 336))  # the left column but for its foot
    assert captions(tagger, picture) == [""]
    assert captions(tagger, picture.transpose(Image.Transpose.ROTATE_180)) == ["dark, light"]


def test_the_picture_stands_in_the_middle_of_white(make: Make) -> None:
    dark = {(1, 1, GREEN): -1.0}
    white_at = {
        "pillarboxed": {(1, 0, BLUE): 1.0, (2, 3, RED): 1.0},
        "letterboxed": {(0, 1, BLUE): 1.0, (3, 2, RED): 1.0},
    }
    tagger = make(looking={name: (-509, {**white, **dark}) for name, white in white_at.items()})
    found = captions(tagger, plain("black", (100, 200)), plain("black", (2000, 1000)), plain("black", (300, 300)))
    assert found == ["pillarboxed", "letterboxed", ""]


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(8, 64), st.integers(0, 99))
def test_a_square_is_what_padding_first_gives(longest: int, other: int, side: int, seed: int) -> None:
    width, height = max(longest, other), min(longest, other)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = np.full((width, width, 3), 255, dtype=np.uint8)
    top = (width - height) // 2
    padded[top : top + height] = noise
    expected = np.asarray(Image.fromarray(padded).resize((side, side), Image.Resampling.BICUBIC))
    assert np.array_equal(np.asarray(white_square(Image.fromarray(noise), side)), expected)
    if height < width:
        tall = Image.fromarray(noise.swapaxes(0, 1).copy())
        assert np.array_equal(np.asarray(white_square(tall, side)), expected.swapaxes(0, 1))


def test_a_long_narrow_picture_needs_no_square_of_its_length() -> None:
    assert white_square(plain("black", (60_000, 20)), SIDE).size == (SIDE, SIDE)


@pytest.mark.parametrize(("batch", "size"), [(1, 1), ("N", 1), (4, 4)])
def test_the_batch_size_is_the_models_or_one_on_the_cpu(make: Make, batch: int | str, size: int) -> None:
    assert make(batch=batch).batch_size == size


def test_a_batch_that_is_not_full_is_captioned(make: Make) -> None:
    tagger = make({"1girl": 0.9}, {"white_theme": (-509, {(1, 1, RED): 2.0})}, batch=4)
    assert captions(tagger, plain("black"), plain("white"), plain("black")) == ["1girl", "1girl, white theme", "1girl"]


def test_a_damaged_model_is_named(tmp_path: Path, make: Make) -> None:
    make()
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    with pytest.raises(BadInput, match=rf"model\.onnx.*damaged or cut off.*Delete {re.escape(str(model))} and start"):
        load(tmp_path, TagOptions(), pytest.fail)


def test_a_list_of_other_length_than_the_models_is_named(tmp_path: Path, make: Make) -> None:
    make()
    tags = tmp_path / "selected_tags.csv"
    tags.write_text("".join(tags.read_text(encoding="utf-8").splitlines(keepends=True)[:9084]), encoding="utf-8")
    with pytest.raises(BadInput, match=r"selected_tags\.csv.*names 9,083 tags, and model\.onnx beside it knows 10,861"):
        load(tmp_path, TagOptions(), pytest.fail)


@pytest.mark.parametrize("content", [b"<html>", b"tag_id,name,category,count\n1,solo", b"\xff\xfe\x00"])
def test_a_list_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    tags = tmp_path / "selected_tags.csv"
    tags.write_bytes(content + b"\n1,solo,")
    with pytest.raises(BadInput, match=r"selected_tags\.csv.*is no list of tags"):
        read_tags(tags)


def test_a_model_of_something_else_is_named(tmp_path: Path, make: Make) -> None:
    make()
    node = helper.make_node("Identity", ["input"], ["output"])
    save(tmp_path / "model.onnx", [node], {"input": ["N", 3, 448, 448]}, {"output": ["N", 3, 448, 448]}, {})
    with pytest.raises(BadInput, match=r"model\.onnx.*takes no square pictures, but \['N', 3, 448, 448\]"):
        load(tmp_path, TagOptions(), pytest.fail)

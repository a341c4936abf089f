from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.tagging.deepdanbooru import DeepDanbooru, edged_square, load
from lora_trainer.tagging.wording import TagOptions
from tests.tagging.onnx_files import logit, tag_model

SIDE = 512
RATINGS = ["rating:safe", "rating:questionable", "rating:explicit"]
TAGS = ["1girl", "hatsune_miku", "red", "green", "blue", "edge", *RATINGS]
LOOKING = {
    2: {(1, 1, 0): 2.0},
    3: {(1, 1, 1): 2.0},
    4: {(1, 1, 2): 2.0},
    5: {(1, 0, 0): 2.0, (1, 0, 1): -1.0, (1, 0, 2): -1.0},  # the left margin is red
}
BIASES = np.array([logit(0.8), logit(0.6), -1, -1, -1, -1, 9, 9, 9])


def made(folder: Path, **options: object) -> DeepDanbooru:
    tag_model(folder / "deepdanbooru.onnx", SIDE, BIASES, LOOKING)
    (folder / "tags.txt").write_text("\r\n".join(TAGS), encoding="utf-8")
    return load(folder, TagOptions(**options), pytest.fail)  # type: ignore[arg-type]


def captions(tagger: DeepDanbooru, image: Image.Image) -> str:
    (caption,) = tagger.caption([tagger.prepare(image)])
    return caption


def test_the_surest_first_and_no_rating(tmp_path: Path) -> None:
    assert captions(made(tmp_path), Image.new("RGB", (64, 64))) == "1girl, hatsune miku"
    assert captions(made(tmp_path, threshold=0.7), Image.new("RGB", (64, 64))) == "1girl"


def test_red_comes_first(tmp_path: Path) -> None:
    tagger = made(tmp_path, threshold=0.7)
    shown = {colour: captions(tagger, Image.new("RGB", (64, 64), colour)) for colour in ("#f00", "#0f0", "#00f")}
    # sigmoid(2 * 1 - 1) = 0.73; "edge" gives sigmoid(2 - 1) on red alone
    assert {colour: set(found.split(", ")) - {"1girl"} for colour, found in shown.items()} == {
        "#f00": {"red", "edge"}, "#0f0": {"green"}, "#00f": {"blue"},
    }  # fmt: skip


def test_levels_come_in_from_0_to_1(tmp_path: Path) -> None:
    tagger = made(tmp_path, threshold=0.5)  # "green" from sigmoid(2 * green - 1) = 0.5 on
    assert "green" not in captions(tagger, Image.new("RGB", (64, 64), (0, 127, 0)))
    assert "green" in captions(tagger, Image.new("RGB", (64, 64), (0, 128, 0)))


def test_margins_are_filled_with_the_outermost_pixels(tmp_path: Path) -> None:
    picture = Image.new("RGB", (200, 400), "white")
    picture.paste("red", (0, 0, 2, 400))
    assert "edge" in captions(made(tmp_path, threshold=0.7), picture)


@pytest.mark.parametrize("size", [(300, 300), (300, 200), (200, 301), (10_000, 16), (3, 2)])
def test_a_square_holds_the_whole_picture_in_its_middle(size: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, size[0]).astype(np.uint8)
    square = edged_square(Image.fromarray(np.tile(ramp, (size[1], 1))).convert("RGB"), 64)
    assert square.shape == (64, 64, 3)
    assert abs(int(square[:, 0].mean()) + int(square[:, -1].mean()) - 255) <= 3
    assert (np.diff(square.astype(int), axis=0) == 0).all()


def test_a_list_that_does_not_fit_is_named(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "tags.txt").write_text("1girl\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"tags\.txt.*names 1 tags, and deepdanbooru\.onnx beside it knows 9"):
        load(tmp_path, TagOptions(), pytest.fail)
    (tmp_path / "tags.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"tags\.txt.*is no list of tags"):
        load(tmp_path, TagOptions(), pytest.fail)

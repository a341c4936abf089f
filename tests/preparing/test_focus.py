from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.scenes import GROUNDS, compose, cutout
from lora_trainer import packages
from lora_trainer.dataset.buckets import Box
from lora_trainer.dataset.crop import FACE, SUBJECT, Focus
from lora_trainer.demo import mascots
from lora_trainer.preparing import faces
from lora_trainer.preparing.focus import load_finder
from lora_trainer.preparing.saliency import find_subject, signature

Find = Callable[[Image.Image], "Focus | None"]


@pytest.fixture(scope="module")
def find() -> Find:
    return load_finder()


def portrait(size: tuple[int, int], face: Box, ground: str = "#7088a0") -> Image.Image:
    """A drawn person whose face has this box."""
    image = Image.new("RGB", size, ground)
    draw, (left, top, right, bottom) = ImageDraw.Draw(image), face

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * (right - left), top + y * (bottom - top)

    def ellipse(x: float, y: float, across: float, down: float, colour: str) -> None:
        draw.ellipse((*at(x - across, y - down), *at(x + across, y + down)), fill=colour)

    draw.polygon(
        [at(*point) for point in ((-0.6, 2), (-0.4, 1.3), (0.3, 1.1), (0.7, 1.1), (1.4, 1.3), (1.6, 2))], "#305080"
    )
    draw.rectangle((*at(0.32, 0.8), *at(0.68, 1.2)), "#d8a888")
    ellipse(0.5, 0.42, 0.62, 0.62, "#4a3020")
    ellipse(0.5, 0.5, 0.5, 0.56, "#ecc0a0")
    line = max(2, (bottom - top) // 45)
    for x in (0.3, 0.7):
        ellipse(x, 0.42, 0.1, 0.05, "white")
        ellipse(x, 0.42, 0.05, 0.05, "#302018")
        draw.line([at(x - 0.13, 0.33), at(x + 0.13, 0.32)], "#4a3020", line)
    draw.line([at(0.5, 0.45), at(0.46, 0.63), at(0.53, 0.65)], "#c89070", line)
    ellipse(0.5, 0.79, 0.16, 0.045, "#b05050")
    return image.filter(ImageFilter.GaussianBlur(1.5))


def overlap(one: Box, other: Box) -> float:
    """Their common area in terms of that of both together."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return common / (both - common)


@pytest.mark.parametrize(
    "size, face",
    [
        ((600, 900), (200, 120, 360, 330)),
        ((1200, 700), (800, 150, 960, 360)),
        ((512, 512), (150, 100, 350, 360)),
        ((2400, 1600), (300, 500, 520, 780)),
    ],
)
def test_a_face_is_found_first(find: Find, size: tuple[int, int], face: Box) -> None:
    focus = find(portrait(size, face))
    assert focus and focus.what == FACE
    assert overlap(focus.box, face) > 0.7


def test_the_larger_of_two_faces_is_the_main_one(find: Find) -> None:
    image = portrait((900, 700), (80, 300, 170, 420))
    image.paste(portrait((450, 700), (120, 100, 300, 340)), (450, 0))
    focus = find(image)
    assert focus and overlap(focus.box, (570, 100, 750, 340)) > 0.7


def test_a_face_in_the_distance_is_passed_over(find: Find) -> None:
    focus = find(portrait((1600, 1600), (1200, 1200, 1240, 1252)))
    assert focus and focus.what == SUBJECT


def test_a_mascot_has_no_human_face_but_stands_out(find: Find) -> None:
    for seed, scene in enumerate(mascots.TRAINING_SCENES):
        made = compose(cutout(mascots.MASCOT, scene), "white", (800, 500), random.Random(seed))
        focus = find(made.image)
        assert focus and focus.what == SUBJECT
        assert overlap(focus.box, made.mask.getbbox() or (0, 0, 0, 0)) > 0.8


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_subject_off_the_centre_is_boxed(ground: str) -> None:
    kept, fits = [], []
    for seed in range(8):
        scene = mascots.HELD_BACK_SCENES[seed]
        made = compose(cutout(mascots.CONTROL, scene), ground, (900, 600), random.Random(f"{ground} {seed}"))
        box = find_subject(made.image)
        assert box
        mask = np.asarray(made.mask, dtype=float)
        kept.append(mask[box[1] : box[3], box[0] : box[2]].sum() / mask.sum())
        fits.append(overlap(box, made.mask.point(lambda level: 255 * (level > 127)).getbbox() or box))
    assert np.mean(kept) > 0.9 and np.mean(fits) > 0.6


@pytest.mark.parametrize("ground", ["gradient", "blurred"])
def test_a_subject_without_a_colour_is_boxed(ground: str) -> None:
    """What differs by rounding alone, as the transform of a colour that is nowhere, does not count."""
    made = compose(cutout(mascots.MASCOT, mascots.TRAINING_SCENES[0]), ground, (900, 600), random.Random(8))
    red, even = made.image.getchannel("R"), Image.new("L", (900, 600), 77)
    box = find_subject(Image.merge("RGB", (red, even, even)))
    assert box and overlap(box, made.mask.getbbox() or box) > 0.6


@pytest.mark.parametrize("ground", ["white", "plain", "gradient", "busy", "grainy"])
def test_where_nothing_stands_out_nothing_is_found(find: Find, ground: str) -> None:
    for seed in range(3):
        assert find(GROUNDS[ground]((700, 500), random.Random(seed))) is None


def test_a_figure_cut_off_by_the_lower_edge_stands_on_plain_ground() -> None:
    image = Image.new("RGB", (800, 600), (240, 240, 235))
    ImageDraw.Draw(image).rectangle((500, 250, 719, 599), fill=(120, 60, 50))
    assert overlap(find_subject(image) or (0, 0, 1, 1), (500, 250, 720, 600)) > 0.9


def test_a_pale_figure_stands_out_of_white() -> None:
    image = Image.new("RGB", (800, 600), "white")
    ImageDraw.Draw(image).ellipse((500, 250, 719, 499), fill=(236, 238, 234))
    assert overlap(find_subject(image) or (0, 0, 1, 1), (500, 250, 720, 500)) > 0.9


def test_a_small_signature_on_plain_ground_is_passed_over() -> None:
    image = Image.new("RGB", (800, 600), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((80, 100, 299, 499), fill="red", outline="black", width=8)
    draw.rectangle((700, 550, 779, 569), fill="black")
    assert overlap(find_subject(image) or (0, 0, 1, 1), (80, 100, 300, 500)) > 0.9


@pytest.mark.parametrize("flip", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM])
@pytest.mark.parametrize("ground", ["plain", "landscape", "busy"])
def test_a_mirrored_picture_has_the_mirrored_box(ground: str, flip: Image.Transpose) -> None:
    made = compose(cutout(mascots.MASCOT, mascots.TRAINING_SCENES[1]), ground, (640, 512), random.Random(3))
    box, mirrored = find_subject(made.image), find_subject(made.image.transpose(flip))
    assert box and mirrored
    left, top, right, bottom = box
    across = flip == Image.Transpose.FLIP_LEFT_RIGHT
    expected = (640 - right, top, 640 - left, bottom) if across else (left, 512 - bottom, right, 512 - top)
    assert np.abs(np.subtract(mirrored, expected)).max() <= 20  # two pixels of the 64 that are looked at


def test_the_image_signature_is_that_of_the_paper() -> None:
    """The blurred square of what the signs of the cosine transform give back, here by Fourier transforms."""
    small = np.random.default_rng(4).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    small[6:12, 20:30] = (250, 20, 30)
    energy = np.zeros((24, 40))
    for channel in small.transpose(2, 0, 1):
        transformed = cosines(cosines(channel.astype(float)).T).T
        # A transform of an orthonormal basis gives its inverse, column by column.
        down, across = (cosines(np.eye(length)) for length in energy.shape)
        energy += (down.T @ np.sign(transformed) @ across) ** 2
    levels = Image.fromarray(np.rint(255 * energy / energy.max()).astype(np.uint8))
    expected = np.asarray(levels.filter(ImageFilter.GaussianBlur(2.5)), dtype=int)
    assert np.abs(signature(small) - expected).max() <= 1


def cosines(signal: np.ndarray) -> np.ndarray:
    """The orthonormal DCT-II along axis 0, by the FFT of the signal and its mirror image."""
    length = len(signal)
    mirrored = np.fft.fft(np.concatenate([signal, signal[::-1]]), axis=0)[:length]
    waves = np.arange(length)[:, None]
    return np.real(mirrored * np.exp(-0.5j * np.pi * waves / length)) / np.sqrt(np.where(waves, 2, 4) * length)


@pytest.mark.parametrize("size", [(16, 16), (16, 4000), (4000, 16), (1, 1)])
def test_a_box_lies_within_the_narrowest_picture(find: Find, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    noise[: size[1] // 4] = 0
    focus = find(Image.fromarray(noise))
    if focus:
        left, top, right, bottom = focus.box
        assert 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]


class Network:
    """Gives offsets and scores as if they were RetinaFace's."""

    def __init__(self, faces: dict[int, tuple[tuple[float, ...], float]]) -> None:
        self.offsets, self.scores = np.zeros((1, 10752, 4), np.float32), np.zeros((1, 10752, 2), np.float32)
        for row, (offsets, score) in faces.items():
            self.offsets[0, row], self.scores[0, row, 1] = offsets, score

    def run(self, wanted: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.seen = given["input"]
        assert wanted == ["loc", "conf"] and self.seen.shape == (1, 3, 512, 512)
        return [self.offsets, self.scores]


def row(stride: int, y: int, x: int, second: bool) -> int:
    """Levels of stride 8, 16, 32; in each, rows of cells; in each cell, two squares."""
    before = {8: 0, 16: 2 * 64**2, 32: 2 * (64**2 + 32**2)}[stride]
    return before + 2 * (y * 512 // stride + x) + second


def test_a_face_is_measured_from_its_square() -> None:
    # The square: 128 pixels about (88, 168). Its face: 12.8 to the right and 25.6 up, as wide, twice as high.
    network: Any = Network({row(16, 10, 5, True): ((1, -2, 0, np.log(2) / 0.2), 0.9)})
    assert faces.find_face(network, Image.new("RGB", (512, 512))) == (37, 14, 165, 270)
    assert faces.find_face(network, Image.new("RGB", (1024, 768))) == (74, 29, 330, 541)


def test_a_face_that_reaches_beyond_the_picture_ends_at_its_edge() -> None:
    network: Any = Network({row(32, 0, 0, True): ((0, 0, 0, 0), 0.9)})
    assert faces.find_face(network, Image.new("RGB", (512, 200))) == (0, 0, 272, 200)


def test_beyond_the_picture_there_is_no_face() -> None:
    network: Any = Network({row(16, 20, 9, True): ((0, 0, 0, 0), 0.9)})  # about (152, 328)
    assert faces.find_face(network, Image.new("RGB", (512, 330)))
    assert faces.find_face(network, Image.new("RGB", (512, 320))) is None


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_grey_picture_has_its_focus_too(find: Find, mode: str) -> None:
    focus = find(portrait((600, 900), (200, 120, 360, 330)).convert(mode))
    assert focus and focus.what == FACE


@pytest.mark.parametrize(
    "found, chosen",
    [
        ({}, None),
        ({row(16, 3, 3, True): 0.5}, None),  # not sure
        ({row(8, 3, 3, False): 0.99}, None),  # 16 pixels of 512
        ({row(16, 3, 3, False): 0.99, row(16, 20, 9, True): 0.7}, (88, 264, 216, 392)),  # the larger
        ({row(16, 3, 3, True): 0.99, row(16, 20, 9, True): 0.7}, (0, 0, 120, 120)),  # the surer of two as large
    ],
)
def test_the_main_face(found: dict[int, float], chosen: Box | None) -> None:
    network: Any = Network({place: ((0, 0, 0, 0), score) for place, score in found.items()})
    assert faces.find_face(network, Image.new("RGB", (512, 512))) == chosen


def test_boxes_and_input_are_as_the_package_itself_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("cv2", "retinaface")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", MagicMock())  # the package's own decoding uses it to join boxes only
    package = import_module("retinaface.postprocess")
    preprocess = import_module("retinaface.preprocess").preprocess

    rng = np.random.default_rng(2)
    offsets = rng.normal(0, 2, (10752, 4)).astype(np.float32)
    levels = zip(package.ANCHOR_STRIDES, package.ANCHOR_SIZES, strict=True)
    anchors = np.concatenate([package.generate_anchors(stride, sizes, 512, 512, 1)[0] for stride, sizes in levels])
    theirs = 512 * package.rebuild_boxes(offsets.copy(), anchors)
    theirs[:, 2:] += theirs[:, :2]
    assert np.allclose(faces.boxes_from(offsets), theirs, rtol=1e-4, atol=1e-2)

    network: Any = Network({})
    pixels = rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)
    faces.find_face(network, Image.fromarray(pixels))
    assert np.array_equal(network.seen, preprocess(pixels))


def test_neither_opencv_nor_the_package_that_needs_it_is_loaded() -> None:
    code = (
        "import sys; from PIL import Image; from lora_trainer.preparing import focus;"
        "assert 'onnxruntime' not in sys.modules;"
        "focus.load_finder()(Image.new('RGB', (64, 64)));"
        "assert not {'cv2', 'retinaface', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], env=packages.environment_for_child(), capture_output=True)
    assert run.returncode == 0, run.stderr

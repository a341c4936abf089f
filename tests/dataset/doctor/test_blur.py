from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lora_trainer.dataset.doctor.blur import BLURRED, blur_radius
from tests.dataset.doctor.scenes import cartoon, scene


def edge(radius: float, contrast: float = 200, slope: float = 0.3) -> np.ndarray:
    """A slanted step from dark to light as a Gaussian blur leaves it: the normal distribution's sum, in closed form."""
    rows, columns = np.mgrid[:96, :128]
    distance = ((columns - 64) - slope * (rows - 48)) / math.hypot(1, slope)
    shares = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / (radius * math.sqrt(2)))))(distance)
    return np.asarray(20 + contrast * shares, dtype=np.float32)


def grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L"), dtype=np.float32)


@pytest.mark.parametrize("radius", [0.8, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("contrast", [60, 200])
def test_the_radius_of_a_blurred_edge_is_found(radius: float, contrast: float) -> None:
    assert blur_radius(edge(radius, contrast)) == pytest.approx(radius, rel=0.12)


def test_sharp_pictures_are_sharp_and_blurred_ones_blurred() -> None:
    for picture in (scene(1), scene(2), cartoon(0), cartoon(1)):
        radius = blur_radius(grey(picture))
        assert radius is not None and radius < 1
        for wanted in (2, 3):
            found = blur_radius(grey(picture.filter(ImageFilter.GaussianBlur(wanted))))
            assert found is not None and found > BLURRED and found == pytest.approx(math.hypot(wanted, radius), rel=0.2)


def test_a_background_out_of_focus_blurs_no_portrait() -> None:
    picture = scene(3)
    behind = picture.filter(ImageFilter.GaussianBlur(8))
    behind.paste(picture.crop((180, 160, 340, 320)), (180, 160))
    radius = blur_radius(grey(behind))
    assert radius is not None and radius < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (64, 64)])
def test_nothing_is_said_without_an_edge(size: tuple[int, int]) -> None:
    assert blur_radius(np.full(size, 130, dtype=np.float32)) is None
    assert blur_radius(np.tile(np.linspace(0, 100, size[1], dtype=np.float32), (size[0], 1))) is None

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from lora_trainer.dataset.crop import FACE, SUBJECT, Cut, Focus, cut_for, figure, make_cut

SIDES = st.one_of(st.integers(1, 64), st.integers(1, 10_000))
PICTURES = st.tuples(SIDES, SIDES)
WANTED = st.tuples(*[st.integers(1, 512).map(lambda steps: 8 * steps)] * 2)


@st.composite
def found(draw: st.DrawFn) -> tuple[tuple[int, int], Focus]:
    """A picture's size, and what was found in it."""
    width, height = draw(PICTURES)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    right, bottom = draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height))
    return (width, height), Focus((left, top, right, bottom), draw(st.sampled_from([FACE, SUBJECT])))


def sides(cut: Cut) -> tuple[int, int]:
    left, top, right, bottom = cut.box
    return right - left, bottom - top


def check(picture: tuple[int, int], cut: Cut) -> None:
    """Inside the picture, not empty, of the size's shape within a pixel, and honest about enlarging."""
    left, top, right, bottom = cut.box
    assert 0 <= left < right <= picture[0] and 0 <= top < bottom <= picture[1]
    (width, height), shape = sides(cut), Fraction(*cut.size)
    assert abs(width - height * shape) <= 1 or abs(height - width / shape) <= 1
    assert cut.enlarged == (width < cut.size[0] or height < cut.size[1])
    assert all(isinstance(edge, int) for edge in (*cut.box, *cut.size))


@given(PICTURES, WANTED)
@example((1, 10_000), (512, 512))
@example((10_000, 1), (512, 512))
@example((1, 10_000), (4096, 64))
@example((64, 4090), (64, 4096))  # enlarged in one direction only
def test_without_a_focus_it_is_the_largest_cut_at_the_centre(picture: tuple[int, int], wanted: tuple[int, int]) -> None:
    cut = cut_for(picture, wanted)
    check(picture, cut)
    assert cut.size == wanted
    width, height = sides(cut)
    assert width == picture[0] or height == picture[1]
    left, top, right, bottom = cut.box
    assert abs(left - (picture[0] - right)) <= 1 and abs(top - (picture[1] - bottom)) <= 1


@given(found(), WANTED)
def test_around_a_focus_the_cut_holds_it_where_it_fits(
    found: tuple[tuple[int, int], Focus], wanted: tuple[int, int]
) -> None:
    picture, focus = found
    cut = cut_for(picture, wanted, focus)
    check(picture, cut)
    assert cut.size == wanted
    width, height = sides(cut)
    left, top, right, bottom = focus.box
    if right - left <= width:
        assert cut.box[0] <= left and right <= cut.box[2]
    if bottom - top <= height:
        assert cut.box[1] <= top and bottom <= cut.box[3]
    else:
        assert cut.box[1] == top  # its upper part


@given(found(), WANTED)
def test_a_cut_comes_no_closer_than_half_the_largest_nor_than_the_wanted_size(
    found: tuple[tuple[int, int], Focus], wanted: tuple[int, int]
) -> None:
    picture, focus = found
    largest, close = (sides(cut_for(picture, wanted, around)) for around in (None, focus))
    for most, side, least in zip(largest, close, wanted, strict=True):
        assert min(most, max(least, most / 2 - 1)) <= side <= most


@given(PICTURES, WANTED)
@example((49, 49), (392, 392))
def test_where_nothing_may_grow_the_size_shrinks_in_steps_of_8(
    picture: tuple[int, int], wanted: tuple[int, int]
) -> None:
    cut = cut_for(picture, wanted, enlarge=False)
    check(picture, cut)
    assert all(side % 8 == 0 and 8 <= side <= most for side, most in zip(cut.size, wanted, strict=True))
    if not cut_for(picture, wanted).enlarged:
        assert cut.size == wanted
    if min(cut.size) > 8:
        assert not cut.enlarged


@pytest.mark.parametrize("enlarge, size, enlarged", [(True, (512, 512), True), (False, (296, 296), False)])
def test_a_picture_smaller_than_the_cut(enlarge: bool, size: tuple[int, int], enlarged: bool) -> None:
    cut = cut_for((400, 300), (512, 512), enlarge=enlarge)
    assert cut == Cut((50, 0, 350, 300), size, enlarged)


def test_a_small_subject_is_cut_closer() -> None:
    subject = Focus((2000, 700, 2600, 1300), SUBJECT)
    assert cut_for((3000, 2000), (512, 512), subject).box == (1700, 400, 2900, 1600)  # twice its size, it in the middle
    assert sides(cut_for((3000, 2000), (1600, 1600), subject)) == (1600, 1600)  # but nothing is enlarged for that
    assert sides(cut_for((6000, 4000), (512, 512), subject)) == (2000, 2000)  # at most half the largest


def test_a_face_stands_high_in_the_cut_over_its_body() -> None:
    face = Focus((1400, 300, 1600, 500), FACE)
    left, top, right, bottom = cut_for((3000, 3000), (512, 512), face).box
    assert (left + right) / 2 == 1500
    assert top <= 200 and bottom >= 500 + 6 * 200
    assert (400 - top) < (bottom - top) / 3


def test_of_a_figure_that_is_too_tall_the_head_is_kept_with_room_above() -> None:
    assert cut_for((1000, 3000), (512, 512), Focus((400, 1000, 600, 1200), FACE)).box == (0, 900, 1000, 1900)


@pytest.mark.parametrize("wanted", [(512, 512), (768, 512), (1024, 512)])
def test_a_large_face_is_whole_where_its_figure_is_not(wanted: tuple[int, int]) -> None:
    face = Focus((250, 500, 650, 900), FACE)
    left, top, right, bottom = cut_for((900, 1350), wanted, face).box
    assert top <= 500 and bottom >= 900
    assert left <= 250 and right >= 650


def test_a_face_at_the_edge_stays_in_the_middle_of_its_figure() -> None:
    assert figure((10, 100, 110, 250), (1000, 2000)) == (0, 25, 120, 1150)
    assert figure((400, 20, 500, 170), (1000, 700)) == (300, 0, 600, 700)


@pytest.mark.parametrize("wanted", [(0, 8), (8, -8), (510, 512), (512, 4)])
def test_a_size_not_in_steps_of_8_is_refused(wanted: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        cut_for((100, 100), wanted)


def test_a_cut_is_the_mean_of_the_pixels_under_each_of_its_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    made = make_cut(Image.fromarray(pixels), Cut((16, 8, 112, 72), (24, 16), False))
    means = pixels[8:72, 16:112].reshape(16, 4, 24, 4, 3).mean((1, 3))
    assert (made.mode, made.size) == ("RGB", (24, 16))
    assert np.abs(np.asarray(made) - means).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_cut_of_its_own_size_keeps_every_pixel(mode: str) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)).convert(mode)
    made = make_cut(image, Cut((5, 3, 37, 35), (32, 32), False))
    assert made.mode == mode
    assert made.tobytes() == image.crop((5, 3, 37, 35)).tobytes()


def test_a_cut_can_be_enlarged() -> None:
    image = Image.new("RGB", (20, 10), (200, 100, 50))
    made = make_cut(image, Cut((0, 0, 20, 10), (64, 32), True))
    assert made.size == (64, 32) and made.getcolors() == [(64 * 32, (200, 100, 50))]

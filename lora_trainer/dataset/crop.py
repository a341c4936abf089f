"""Cutting a picture to a size that is asked for: where, around what, and whether its pixels suffice."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from PIL import Image

from lora_trainer.dataset.buckets import Box, Placement, Size
from lora_trainer.dataset.pictures import fit

STEP = 8  # pixels: a latent stands for 8 x 8 of them
ROOM = 2  # a cut's sides are so many times those of what it is made around
CLOSEST = 2  # a cut comes so many times closer than the largest one, and no more: what was found may be wrong

FACE, SUBJECT = "face", "subject"


@dataclass(frozen=True)
class Focus:
    """What was found in a picture, a FACE or a SUBJECT, and its box (left, top, right, bottom) in pixels."""

    box: Box
    what: str


@dataclass(frozen=True)
class Cut:
    """`box` (left, top, right, bottom) of a picture, resized to `size`; `enlarged` where a side of it is shorter."""

    box: Box
    size: Size
    enlarged: bool


def cut_for(picture: Size, wanted: Size, focus: Focus | None = None, enlarge: bool = True) -> Cut:
    """The cut of a picture of this size to the wanted one, in its shape to within a pixel, and inside the picture.

    Without a focus it is the largest there is, at the centre. Around a focus it may be closer: ROOM times as large as
    the focus (a face with its figure), at least 1 / CLOSEST of the largest, and not below the wanted size. It holds
    the focus where that fits, as near to its middle as the picture's edges allow; of a focus that is too tall the upper
    part, where a figure's head is, and of one too wide the middle.

    Where the picture is smaller than that and `enlarge` is false, the cut's size is the largest in steps of STEP that
    the picture fills. Raises ValueError for a wanted size that is not in such steps.
    """
    if min(wanted) < STEP or any(side % STEP for side in wanted):
        raise ValueError(f"{wanted[0]} x {wanted[1]} is not in multiples of {STEP}")
    size = wanted if enlarge else _filled(picture, wanted)
    largest = _largest(picture, size)
    if focus is None:
        width, height = _scaled(picture, size, largest)
        x, y = _start(0, picture[0], width, picture[0]), _start(0, picture[1], height, picture[1])
    else:
        left, top, right, bottom = figure(focus.box, picture) if focus.what == FACE else focus.box
        close = ROOM * max(Fraction(right - left, size[0]), Fraction(bottom - top, size[1]))
        width, height = _scaled(picture, size, min(largest, max(close, largest / CLOSEST, Fraction(1))))
        x = _start(left, right, width, picture[0])
        y = _start(top, min(bottom, top + height), height, picture[1])
        y = min(max(y, focus.box[3] - height), focus.box[1])  # a face is held even where its figure is not
    return Cut((x, y, x + width, y + height), size, width < size[0] or height < size[1])


def figure(face: Box, picture: Size) -> Box:
    """The face with a standing figure's room, inside the picture: half a face above it, six below, up to one beside.

    The face stays in the middle from left to right, so that a cut too narrow for all of it holds the face.
    """
    left, top, right, bottom = face
    height = bottom - top
    beside = min(right - left, left, picture[0] - right)
    return left - beside, max(top - height // 2, 0), right + beside, min(bottom + 6 * height, picture[1])


def make_cut(image: Image.Image, cut: Cut) -> Image.Image:
    """The cut out of a picture (RGB or L): resized as pictures are for training, see `fit`."""
    part = image.crop(cut.box)
    return Image.fromarray(fit(part, Placement(cut.size, cut.size, (0, 0, *cut.size))))


def _filled(picture: Size, wanted: Size) -> Size:
    """The wanted size, or the largest of about its shape that the picture fills; a step a side at least."""
    scale = min(Fraction(1), _largest(picture, wanted))
    width, height = (max(STEP, int(side * scale) // STEP * STEP) for side in wanted)
    return width, height


def _largest(picture: Size, size: Size) -> Fraction:
    """The sides of the largest cut, in terms of `size`'s."""
    return min(Fraction(picture[0], size[0]), Fraction(picture[1], size[1]))


def _scaled(picture: Size, size: Size, scale: Fraction) -> Size:
    width, height = (min(whole, max(1, round(side * scale))) for whole, side in zip(picture, size, strict=True))
    return width, height


def _start(first: int, last: int, length: int, whole: int) -> int:
    """Where a stretch of this length begins whose middle is that of first..last, within 0..whole."""
    return min(max((first + last - length) // 2, 0), whole - length)

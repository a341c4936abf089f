"""What stands out in a picture, drawn or photographed: all that is not plain ground, else by its image signature."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageFilter

from lora_trainer.dataset.buckets import Box, Size

SIDE = 64  # pixels that the picture is looked at with
ALIKE = 12  # levels of 255 by which a plain ground may vary
AROUND = 0.95  # of a side is plain ground where there is one: specks
BLUR = 2.5  # of these pixels: a drawing's outlines become an area
MAIN = 0.5  # of the weight of the heaviest part that stands out: lighter ones are passed over
TAIL = 0.005  # of what stands out may lie beyond each edge of the box: specks
CLEAR = 3  # so many times as salient as the rest is what stands out; in many a photo nothing is
WHOLE = 0.7  # a box of more of the picture than this says that nothing stands out


def find_subject(image: Image.Image) -> Box | None:
    """The box of what stands out of a picture (RGB or L); None where nothing does."""
    small = _small(image)
    apart = off_the_ground(small)
    if apart is not None:
        return _scaled(_box(apart), apart.shape, image.size) if apart.any() else None
    salient = signature(small)
    box = _box(np.where(salient > _threshold(salient), salient, 0))
    return _scaled(box, salient.shape, image.size) if _clear(salient, box) else None


def off_the_ground(small: np.ndarray) -> np.ndarray | None:
    """bool (h, w): where an RGB picture (h, w, 3) is not of the colour that is all around it; None where none is.

    It is all around where it fills all sides but one, at which a figure may be cut off.
    """
    sides = small[0], small[-1], small[:, 0], small[:, -1]
    ground = np.median(np.concatenate(sides), axis=0)
    _, *others = sorted((_distance(side, ground) <= ALIKE).mean() for side in sides)
    return _distance(small, ground) > ALIKE if min(others) >= AROUND else None


def signature(small: np.ndarray) -> np.ndarray:
    """uint8 (h, w): how much each place of an RGB picture (h, w, 3), not all black, stands out by its image signature.

    Hou, Harel, Koch, "Image Signature: Highlighting Sparse Salient Regions", IEEE TPAMI 34 (2012): of the cosine
    transform only the signs are kept; what is spread over the picture cancels out, and what is in one place stays.
    """
    energy = np.sum([_rebuilt(channel) ** 2 for channel in small.transpose(2, 0, 1).astype(np.float64)], axis=0)
    levels = np.rint(255 * energy / energy.max()).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(BLUR)))


def _small(image: Image.Image) -> np.ndarray:
    """uint8 (h, w, 3), the longer side SIDE."""
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BOX, reducing_gap=2.0).convert("RGB"))


def _distance(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The largest difference of a channel."""
    distance: np.ndarray = np.abs(pixels - colour).max(axis=-1)
    return distance


def _rebuilt(channel: np.ndarray) -> np.ndarray:
    """(h, w) from the signs of its cosine transform alone, without those that are 0 but for rounding."""
    down, across = _cosines(channel.shape[0]), _cosines(channel.shape[1])
    transformed = down @ channel @ across.T
    signs = np.where(np.abs(transformed) > 1e-6, np.sign(transformed), 0)
    return down.T @ signs @ across


def _cosines(length: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix (length, length)."""
    waves = np.arange(length)[:, None]
    matrix = np.cos(np.pi * (np.arange(length) + 0.5) * waves / length) * np.sqrt(2 / length)
    matrix[0] /= np.sqrt(2)
    return matrix


def _threshold(levels: np.ndarray) -> int:
    """Otsu's: the level that parts `levels` (uint8) into two groups whose means lie furthest apart, by their counts."""
    counts = np.bincount(levels.ravel(), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    apart = (sums[-1] * below - sums * below[-1]) ** 2 / np.maximum(below * above, 1)
    return int(apart.argmax())


def _main_parts(apart: np.ndarray) -> np.ndarray:
    """The same (h, w) with 0 for all connected parts that weigh less than MAIN of the heaviest one."""
    mask = apart > 0
    labels, grown = np.zeros(apart.shape, dtype=int), np.arange(1, apart.size + 1).reshape(apart.shape) * mask
    while not np.array_equal(labels, grown):
        labels = grown
        grown = sliding_window_view(np.pad(labels, 1), (3, 3)).max((2, 3)) * mask
    weights = np.bincount(labels.ravel(), apart.ravel())
    return np.where((weights >= MAIN * weights.max())[labels], apart, 0)


def _box(apart: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the main parts of what stands out (h, w)."""
    parts = _main_parts(apart.astype(np.float64))
    left, right = _ends(parts.sum(axis=0))
    top, bottom = _ends(parts.sum(axis=1))
    return left, top, right, bottom


def _clear(salient: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    """Whether the box holds what stands out, and does not hold nearly all."""
    left, top, right, bottom = (round(edge) for edge in box)
    inside = np.zeros(salient.shape, dtype=bool)
    inside[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return bool(inside.mean() <= WHOLE and salient[inside].mean() >= CLEAR * salient[~inside].mean())


def _scaled(box: tuple[float, float, float, float], shape: tuple[int, ...], size: Size) -> Box:
    """From a map of this shape (h, w) to the picture's pixels, outwards."""
    across, down = size[0] / shape[1], size[1] / shape[0]
    left, top, right, bottom = box
    return int(left * across), int(top * down), ceil(right * across), ceil(bottom * down)


def _ends(profile: np.ndarray) -> tuple[float, float]:
    """Between which places of the profile all of it lies but TAIL on either side."""
    share = np.concatenate([[0], np.cumsum(profile)]) / profile.sum()
    first, last = np.interp((TAIL, 1 - TAIL), share, np.arange(len(share)))
    return float(first), float(last)

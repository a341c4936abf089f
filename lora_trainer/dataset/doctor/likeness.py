"""Which pictures are nearly the same: resized, saved again, a little brighter, a few percent cropped.

Pairs are proposed by the difference hash (ImageHash's `dhash`) and confirmed by their thumbnails: each pixel of one
must lie about between the darkest and the brightest pixels around its place in the other. A crop moves everything by
less than a thumbnail's pixel; the same figure in another pose does not fit in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lora_trainer.dataset.doctor.looks import Look

# Measured on photographs and drawings: crops of 2 % on each side differ in up to 9 bits, and the third worst pixel by
# up to 67 levels; crops of 5 % on one side in 12 bits, JPEGs of quality 10 in 6 bits and by 13 levels, and drawings of
# one figure in other poses by 85 levels and more.
MOST_BITS = 12  # of 64
MOST_LEVELS, BUT_PIXELS = 75, 2  # of 255; but so many pixels may be further off: a sliver at a cut edge
_ROWS, _PAIRS = 1024, 8192  # at a time, which bounds the memory


def alike(looks: Sequence[Look]) -> list[list[Look]]:
    """The groups of two or more that belong together by pairs, in the order of their first."""
    known: dict[bytes, int] = {}
    parents = [known.setdefault(look.hash.tobytes() + look.thumbnail.tobytes(), at) for at, look in enumerate(looks)]
    distinct = list(known.values())
    for first, second in _pairs([looks[at] for at in distinct]):
        root, other = sorted((_root(parents, distinct[first]), _root(parents, distinct[second])))
        parents[other] = root
    groups: dict[int, list[Look]] = {}
    for at, look in enumerate(looks):
        groups.setdefault(_root(parents, at), []).append(look)
    return [group for group in groups.values() if len(group) > 1]


def _root(parents: list[int], at: int) -> int:
    while parents[at] != at:
        parents[at] = at = parents[parents[at]]
    return at


def _pairs(looks: Sequence[Look]) -> Iterator[tuple[int, int]]:
    if not looks:
        return
    thumbnails = np.stack([look.thumbnail for look in looks])
    lowest, highest = _around(thumbnails)
    # A ninth of the pixels at a time: few pairs need more than the first.
    parts = [(slice(None), slice(down, None, 3), slice(across, None, 3)) for down in range(3) for across in range(3)]
    bounded = [tuple(_flat(levels[part]) for levels in (thumbnails, lowest, highest)) for part in parts]
    for first, second in _proposed(np.stack([look.hash for look in looks])):
        off = np.zeros(len(first), dtype=np.int64)
        for levels, least, most in bounded:
            there = _outside(levels[first], least[second], most[second])
            back = _outside(levels[second], least[first], most[first])
            off += (np.maximum(there, back) > MOST_LEVELS).sum(axis=1, dtype=np.uint8)
            fits = off <= BUT_PIXELS
            first, second, off = first[fits], second[fits], off[fits]
        yield from zip(first.tolist(), second.tolist())


def _proposed(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs whose hashes (N, bits) differ in few bits: the indices of their firsts, and of their later seconds."""
    signs = np.where(hashes, 1, -1).astype(np.float32)
    least = signs.shape[1] - 2 * MOST_BITS  # the product of two is the bits that agree less those that differ
    for start in range(0, len(signs), _ROWS):
        firsts, seconds = np.nonzero(np.triu(signs[start : start + _ROWS] @ signs[start:].T >= least, 1))
        for part in range(0, len(firsts), _PAIRS):
            yield firsts[part : part + _PAIRS] + start, seconds[part : part + _PAIRS] + start


def _around(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest of the 3 x 3 levels around each pixel, both (N, H, W, 3)."""
    height, width = thumbnails.shape[1:3]
    padded = np.pad(thumbnails, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    lowest, highest = thumbnails.copy(), thumbnails.copy()
    for down in range(3):
        for across in range(3):
            shifted = padded[:, down : down + height, across : across + width]
            np.minimum(lowest, shifted, out=lowest)
            np.maximum(highest, shifted, out=highest)
    return lowest, highest


def _flat(levels: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) -> (N, 3, H x W)"""
    return np.ascontiguousarray(levels.reshape(len(levels), -1, 3).swapaxes(1, 2))


def _outside(levels: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """How far each pixel's levels (N, 3, pixels) lie outside the bounds, at most: uint8 (N, pixels)."""
    above = np.maximum(levels, highest) - highest
    below = lowest - np.minimum(levels, lowest)
    return np.asarray(np.maximum(above, below).max(axis=1))

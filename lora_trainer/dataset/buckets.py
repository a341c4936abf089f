"""Aspect buckets: the sizes that pictures are cut to, as sd-scripts cuts them, so that its users get the same crops.

A size is (width, height) in pixels everywhere.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from lora_trainer.config import BadInput, Config, Problem

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Buckets:
    """`sizes` in ascending order; none where nothing is enlarged and each picture's own size makes its bucket."""

    resolution: Size
    sizes: tuple[Size, ...]
    step: int


@dataclass(frozen=True)
class Placement:
    """A picture is resized to `resized`, then `crop` (left, top, right, bottom) is cut out of it: `bucket` in size."""

    bucket: Size
    resized: Size
    crop: Box


def make_buckets(resolution: Size, minimum: int, maximum: int, step: int) -> tuple[Size, ...]:
    """All sizes in multiples of `step` from `minimum` to `maximum` a side with an area of at most `resolution`'s.

    `minimum` is rounded down and `maximum` up to a multiple of `step`. The largest square is always among them. Raises
    BadInput where the resolution does not lie between the two or is smaller than a step.
    """
    minimum, maximum = minimum // step * step, -(-maximum // step) * step
    _check(resolution, minimum, maximum, step)
    area = resolution[0] * resolution[1]
    square = int(math.sqrt(area) // step) * step
    sizes = {(square, square)}
    for width in range(max(minimum, step), maximum + 1, step):
        height = min(maximum, area // width // step * step)
        if height >= max(minimum, step):
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def _check(resolution: Size, minimum: int, maximum: int, step: int) -> None:
    problems = []
    if min(resolution) < max(minimum, step):
        remedy = "Raise the resolution, or lower the smallest bucket and the bucket step."
        problems.append(Problem("min_bucket", minimum, f"is more than the resolution {resolution} allows", remedy))
    if max(resolution) > maximum:
        remedy = "Lower the resolution, or raise the largest bucket."
        problems.append(Problem("max_bucket", maximum, f"is less than the resolution {resolution} needs", remedy))
    if problems:
        raise BadInput(problems)


def buckets_for(config: Config) -> Buckets:
    """The buckets of a config whose family defaults are filled in; one size only where `config.buckets` is off."""
    resolution, maximum = config.resolution, config.max_bucket
    if resolution is None or maximum is None:
        raise ValueError("the config has no family yet: see Config.for_family")
    if not config.buckets:
        return Buckets(resolution, (resolution,), config.bucket_step)
    sizes = make_buckets(resolution, config.min_bucket, maximum, config.bucket_step)
    return Buckets(resolution, () if config.bucket_no_upscale else sizes, config.bucket_step)


def place(size: Size, buckets: Buckets, rng: random.Random | None = None) -> Placement:
    """Where a picture of this size is cut: at its centre, or by chance where `rng` is given.

    Raises BadInput for a picture that fills no bucket without being enlarged.
    """
    if buckets.sizes:
        bucket = size if size in buckets.sizes else _nearest(size, buckets.sizes)
        resized = _cover(size, bucket)
    else:
        resized = _shrink(size, buckets.resolution[0] * buckets.resolution[1], buckets.step)
        bucket = (resized[0] // buckets.step * buckets.step, resized[1] // buckets.step * buckets.step)
    if min(bucket) == 0:
        remedy = "Let pictures be enlarged (bucket_no_upscale = false), or use a larger picture."
        problem = f"a picture of {size[0]} x {size[1]} fills no bucket in steps of {buckets.step}"
        raise BadInput(Problem("bucket_no_upscale", True, problem, remedy))
    left, top = (_offset(whole - part, rng) for whole, part in zip(resized, bucket, strict=True))
    return Placement(bucket, resized, (left, top, left + bucket[0], top + bucket[1]))


def size_condition(size: Size, bucket: Size, flip: bool = False) -> tuple[int, int]:
    """(left, top) of the crop as SDXL is told it.

    sd-scripts states how far the picture, shrunk into the bucket whole, stands from the bucket's edges, in the bucket's
    pixels, and not what `place` has cut off; LoRAs are trained and known with that.
    """
    width, height = bucket
    aspect = size[0] / size[1]
    inner = (height * aspect, height) if width / height > aspect else (width, width / aspect)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    return int(width - left - inner[0] if flip else left), int(top)


def _offset(spare: int, rng: random.Random | None) -> int:
    return rng.randint(0, spare) if rng and spare else spare // 2


def _nearest(size: Size, sizes: tuple[Size, ...]) -> Size:
    """The size whose width / height is nearest; the first of equals."""
    aspect = size[0] / size[1]
    return min(sizes, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def _cover(size: Size, bucket: Size) -> Size:
    """The smallest size of the picture's shape that covers the bucket."""
    wider = size[0] / size[1] > bucket[0] / bucket[1]
    scale = bucket[1] / size[1] if wider else bucket[0] / size[0]
    return _round(size[0] * scale), _round(size[1] * scale)


def _shrink(size: Size, area: int, step: int) -> Size:
    """The picture at no more than about `area`, one side a multiple of `step`: the side that keeps the shape better."""
    if size[0] * size[1] <= area:
        return size
    aspect = size[0] / size[1]
    width = math.sqrt(area * aspect)
    height = _floor(area / width, step)
    width = _floor(width, step)
    error_by_width = _aspect_error(width, _floor(width / aspect, step), aspect)
    error_by_height = _aspect_error(_floor(height * aspect, step), height, aspect)
    return (width, _round(width / aspect)) if error_by_width < error_by_height else (_round(height * aspect), height)


def _aspect_error(width: int, height: int, aspect: float) -> float:
    return abs(width / height - aspect) if height else math.inf


def _floor(length: float, step: int) -> int:
    return _round(length) // step * step


def _round(length: float) -> int:
    return int(length + 0.5)  # halves go up, where Python's round() takes them to the even number

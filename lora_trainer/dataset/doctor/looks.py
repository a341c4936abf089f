"""One look at each picture: decoded once, no larger than it is trained, and what is kept of it is small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lora_trainer.dataset.buckets import Buckets, Size, place
from lora_trainer.dataset.doctor.blur import blur_radius
from lora_trainer.dataset.pictures import picture_size, read_small

THUMBNAIL = 24  # pixels a side


@dataclass(frozen=True)
class Trained:
    """How a picture goes into training: in which bucket, which share of it (0 to 1) is cut away for that, and how many
    times it is enlarged (1 where it is not)."""

    picture: Path
    size: Size
    bucket: Size
    cropped: float
    enlarged: float


@dataclass(frozen=True, eq=False)
class Look:
    """`blur` in pixels of the size trained at, None where nothing in the picture has an edge. `hash`: bool (64,);
    `thumbnail`: uint8 (THUMBNAIL, THUMBNAIL, 3), the picture squeezed into a square."""

    path: Path
    trained: Trained
    blur: float | None
    hash: np.ndarray
    thumbnail: np.ndarray


def look_at(path: Path, buckets: Buckets) -> Look:
    """Raises BadInput on a picture that cannot be read or trained."""
    from imagehash import dhash

    size = picture_size(path)
    placement = place(size, buckets)
    resized, bucket = placement.resized, placement.bucket
    cropped = 1 - bucket[0] * bucket[1] / (resized[0] * resized[1])
    trained = Trained(path, size, bucket, cropped, max(1.0, *(new / old for new, old in zip(resized, size))))
    picture = read_small(path, min(max(resized), max(size)))
    return Look(
        path,
        trained,
        blur_radius(np.asarray(picture.convert("L"), dtype=np.float32)),
        dhash(picture).hash.ravel(),
        np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)),
    )

"""What two pictures differ by."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

Drawn = np.ndarray


def picture_of(text: str) -> Drawn:
    """A PNG in base64, as levels of 0 to 255."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as opened:
        return np.asarray(opened.convert("RGB")).astype(float)


def difference(one: Drawn, other: Drawn) -> float:
    """The mean over all pixels, in levels."""
    return float(np.abs(one - other).mean())

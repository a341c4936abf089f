"""Pictures for the doctor, made on the spot: as busy as photographs, and flat as drawings."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

FINE = 2  # drawn at twice the size, so that edges are as smooth as a drawing's


def scene(seed: int, side: int = 512) -> Image.Image:
    """Light and shade of all sizes, and a hundred things with sharp edges in front of them."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (side * FINE, side * FINE))
    for cells, share in ((4, 1.0), (16, 0.4)):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image = Image.blend(image, noise.resize(image.size, Image.Resampling.BICUBIC), share)
    pen = ImageDraw.Draw(image)
    for _ in range(100):
        left, top, width, height = rng.uniform((0, 0, 0.02, 0.02), (1, 1, 0.2, 0.2)) * side * FINE
        colour = tuple(int(level) for level in rng.integers(0, 256, 3))
        draw = pen.ellipse if rng.random() < 0.5 else pen.rectangle
        draw((left, top, left + width, top + height), fill=colour)
    return image.resize((side, side), Image.Resampling.BOX)


def cartoon(arm: float, side: int = 512) -> Image.Image:
    """A flat figure with thick outlines on white; `arm` from 0 (down) to 1 (up) is its pose."""
    image = Image.new("RGB", (side * FINE, side * FINE), "white")
    pen, unit = ImageDraw.Draw(image), side * FINE / 100
    ink, width = (40, 30, 40), round(unit * 1.5)

    def oval(left: float, top: float, right: float, bottom: float, fill: str) -> None:
        box = (left * unit, top * unit, right * unit, bottom * unit)
        pen.ellipse(box, fill=fill, outline=ink, width=width)

    oval(30, 45, 70, 95, "limegreen")
    oval(25, 10, 75, 60, "palegreen")
    oval(37, 28, 45, 40, "white")
    oval(55, 28, 63, 40, "white")
    oval(68, 62 - 45 * arm, 92, 74 - 45 * arm, "gold")
    return image.resize((side, side), Image.Resampling.BOX)

"""Pictures with a subject whose place is known: the demo's mascots, off the centre, on grounds of seven kinds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lora_trainer.dataset.buckets import Size
from lora_trainer.demo import mascots, sprites

SIZES: tuple[Size, ...] = ((900, 600), (600, 900), (1200, 500), (700, 700))
SMALLEST, LARGEST = 0.25, 0.7  # the subject's longer side, in terms of the picture's shorter one


@dataclass(frozen=True)
class Scene:
    """`mask` (L, the picture's size): 255 where the subject is."""

    ground: str
    image: Image.Image
    mask: Image.Image


def scenes(each: int, seed: int = 0) -> Iterator[Scene]:
    """`each` scenes of every ground, the same for the same seed."""
    rng = random.Random(seed)
    cutouts = [
        cutout(mascot, scene)
        for mascot in (mascots.MASCOT, mascots.CONTROL)
        for scene in mascots.TRAINING_SCENES + mascots.HELD_BACK_SCENES
    ]
    for ground in GROUNDS:
        for _ in range(each):
            yield compose(rng.choice(cutouts), ground, rng.choice(SIZES), rng)


def compose(subject: Image.Image, ground: str, size: Size, rng: random.Random) -> Scene:
    """The subject (RGBA) somewhere on the ground, whole."""
    image = GROUNDS[ground](size, rng)
    subject = subject.crop(subject.getchannel("A").point(lambda level: 255 * (level > 127)).getbbox())
    scale = rng.uniform(SMALLEST, LARGEST) * min(size) / max(subject.size)
    shown = subject.resize((round(subject.width * scale), round(subject.height * scale)), Image.Resampling.BICUBIC)
    place = rng.randint(0, size[0] - shown.width), rng.randint(0, size[1] - shown.height)
    image.paste(shown, place, shown)
    mask = Image.new("L", size)
    mask.paste(shown.getchannel("A"), place)
    return Scene(ground, image, mask)


def cutout(mascot: mascots.Mascot, scene: mascots.Scene) -> Image.Image:
    """The mascot alone, RGBA: what two plain backgrounds have in common."""
    grounds = {"white background": (252, 252, 252), "pink background": (255, 196, 214)}
    traits = mascots.traits(mascot, scene)
    one, other = (
        np.asarray(sprites.draw(replace(traits, background=name), random.Random(repr(scene))), dtype=float)
        for name in grounds
    )
    white, pink = (np.array(colour, dtype=float) for colour in grounds.values())
    alpha = 1 - ((one - other)[..., 1:] / (white - pink)[1:]).mean(-1, keepdims=True).clip(0, 1)
    colour = np.where(alpha > 0, (one - white * (1 - alpha)) / np.maximum(alpha, 0.01), 0).clip(0, 255)
    return Image.fromarray(np.rint(np.concatenate([colour, alpha * 255], axis=-1)).astype(np.uint8))


def _white(size: Size, rng: random.Random) -> Image.Image:
    return Image.new("RGB", size, "white")


def _plain(size: Size, rng: random.Random) -> Image.Image:
    return Image.new("RGB", size, sprites.random_colour(rng))


def _gradient(size: Size, rng: random.Random) -> Image.Image:
    first, last = (np.array(sprites.random_colour(rng), dtype=float) for _ in range(2))
    x, y = np.meshgrid(np.linspace(0, rng.random(), size[0]), np.linspace(0, rng.random(), size[1]))
    share = (x + y)[..., None] / (x + y).max()
    return Image.fromarray((first + (last - first) * share).astype(np.uint8))


def _landscape(size: Size, rng: random.Random) -> Image.Image:
    """Sky, hill and sun."""
    image = Image.new("RGB", size, (rng.randint(90, 180), rng.randint(150, 220), 250))
    draw, (width, height) = ImageDraw.Draw(image), size
    radius, x, y = min(size) / 12, rng.uniform(0, width), rng.uniform(0, height / 3)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 226, 70))
    top = rng.uniform(0.5, 0.8) * height
    draw.ellipse((-width / 2, top, width * 3 / 2, height * 2), fill=(rng.randint(60, 120), 180, 84))
    return image


def _noise(size: Size, rng: random.Random) -> Image.Image:
    grain = np.random.default_rng(rng.randrange(2**32)).normal(0, 25, (size[1], size[0], 3))
    return Image.fromarray((grain + sprites.random_colour(rng)).clip(0, 255).astype(np.uint8))


def _shapes(count: int, smallest: float, largest: float, blur: float) -> Callable[[Size, random.Random], Image.Image]:
    """Ellipses and rectangles in colours about one; radii and blur in terms of the picture's longer side."""

    def ground(size: Size, rng: random.Random) -> Image.Image:
        base, side = sprites.random_colour(rng), max(size)
        image = Image.new("RGB", size, base)
        draw = ImageDraw.Draw(image)
        for _ in range(count):
            red, green, blue = (min(max(level + rng.randint(-70, 70), 0), 255) for level in base)
            x, y, radius = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(smallest, largest) * side
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape((x - radius, y - radius * 0.6, x + radius, y + radius * 0.6), fill=(red, green, blue))
        return image.filter(ImageFilter.GaussianBlur(blur * side))

    return ground


GROUNDS: dict[str, Callable[[Size, random.Random], Image.Image]] = {
    "white": _white,
    "plain": _plain,
    "gradient": _gradient,
    "landscape": _landscape,
    "blurred": _shapes(14, 0.05, 0.3, 1 / 60),
    "busy": _shapes(60, 0.02, 0.1, 1 / 400),
    "grainy": _noise,
}

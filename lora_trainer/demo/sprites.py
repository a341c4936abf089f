"""Tagged mascot sprites: the pictures that the demo base is trained on, drawn by this file.

A sprite is 64 x 64 px: one big-headed creature with thick outlines and flat colours. Everything in it is at least six
pixels wide where it matters, because the demo base sees it through 8 x 8 latents.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SUPERSAMPLING = 4
OUTLINE = 2.0

Colour = tuple[int, int, int]
Point = tuple[float, float]

INK: Colour = (44, 30, 44)
WHITE: Colour = (255, 255, 255)
CREAM: Colour = (255, 238, 208)
BLUSH: Colour = (255, 140, 150)
GOLD: Colour = (255, 205, 50)
RED: Colour = (224, 52, 58)


@dataclass(frozen=True)
class Fur:
    """The colours of a coat. `right` is the colour of the right half where it differs from `main`."""

    main: Colour
    belly: Colour
    inner_ear: Colour = BLUSH
    horns: Colour = GOLD
    right: Colour | None = None
    muzzle: Colour | None = None


FURS: dict[str, Fur] = {
    "white fur": Fur((250, 248, 245), (255, 225, 225)),
    "brown fur": Fur((140, 88, 52), (222, 180, 134)),
    "orange fur": Fur((245, 140, 40), (255, 226, 178)),
    "grey fur": Fur((150, 152, 162), (222, 222, 228)),
    "black fur": Fur((70, 62, 78), (150, 142, 160)),
    "pink fur": Fur((250, 160, 190), (255, 222, 232)),
    "yellow fur": Fur((250, 214, 80), (255, 244, 190)),
    "blue fur": Fur((88, 140, 232), (190, 216, 255)),
}
EYES: dict[str, Colour] = {
    "black eyes": (36, 26, 36),
    "blue eyes": (30, 96, 232),
    "green eyes": (20, 160, 60),
    "red eyes": (214, 24, 40),
}
OUTFIT_COLOURS: dict[str, Colour] = {
    "red": RED,
    "blue": (44, 92, 210),
    "green": (50, 160, 74),
    "yellow": (250, 200, 40),
    "purple": (140, 70, 190),
    "white": (245, 245, 245),
}
EARS = ("cat ears", "rabbit ears", "bear ears", "dog ears", "mouse ears")
HORNS = ("horns", "antennae")  # instead of ears; no caption of the base has them
EXPRESSIONS = ("smile", "open mouth", "frown", "closed eyes")
OUTFITS = ("", "shirt", "dress", "overalls", "scarf")
HEADWEAR = ("", "top hat", "witch hat", "crown", "beanie", "bow")
EYEWEAR = ("", "", "", "glasses", "sunglasses")
BACKGROUNDS = (
    "white background",
    "pink background",
    "yellow background",
    "meadow",
    "night",
    "beach",
    "forest",
    "snow",
    "sunset",
)
POSES = ("arms down", "arms up", "waving", "arms spread")
MARKS = ("", "star", "spot")


@dataclass(frozen=True)
class Traits:
    """What one sprite shows. Each word is one of the tables above; an empty word means none."""

    fur: str | Fur
    ears: str
    eyes: str
    expression: str
    outfit: str
    outfit_colour: str
    headwear: str
    eyewear: str
    background: str
    pose: str
    mark: str = ""

    @property
    def coat(self) -> Fur:
        return FURS[self.fur] if isinstance(self.fur, str) else self.fur


def random_traits(rng: random.Random) -> Traits:
    """Traits drawn independently of one another, as the demo base is trained on."""
    return Traits(
        fur=rng.choice(list(FURS)),
        ears=rng.choice(EARS),
        eyes=rng.choice(list(EYES)),
        expression=rng.choice(EXPRESSIONS),
        outfit=rng.choice(OUTFITS),
        outfit_colour=rng.choice(list(OUTFIT_COLOURS)),
        headwear=rng.choice(HEADWEAR),
        eyewear=rng.choice(EYEWEAR),
        background=rng.choice(BACKGROUNDS),
        pose=rng.choice(POSES),
    )


def scene_tags(traits: Traits) -> list[str]:
    """Tags of what can change from picture to picture of one mascot: clothes, place, pose, expression."""
    outfit = f"{traits.outfit_colour} {traits.outfit}" if traits.outfit else ""
    scene = (outfit, traits.headwear, traits.eyewear, traits.background, traits.pose, traits.expression)
    return [tag for tag in scene if tag]


def body_tags(traits: Traits) -> list[str]:
    """Tags of what makes the creature itself. Eyes that are shut or behind sunglasses have no tag."""
    fur = traits.fur if isinstance(traits.fur, str) else ""
    hidden = traits.expression == "closed eyes" or traits.eyewear == "sunglasses"
    return [tag for tag in (fur, traits.ears, "" if hidden else traits.eyes) if tag]


def tags(traits: Traits) -> list[str]:
    """All tags of a sprite."""
    return body_tags(traits) + scene_tags(traits)


def all_tags() -> list[str]:
    """Every tag that the base's captions use."""
    outfits = [f"{colour} {outfit}" for outfit in OUTFITS if outfit for colour in OUTFIT_COLOURS]
    tables = (FURS, EARS, EYES, EXPRESSIONS, outfits, HEADWEAR, EYEWEAR, BACKGROUNDS, POSES)
    return list(dict.fromkeys(tag for table in tables for tag in table if tag))


def caption(traits: Traits, rng: random.Random) -> str:
    """All tags of a sprite in random order, separated by commas."""
    mixed = tags(traits)
    rng.shuffle(mixed)
    return ", ".join(mixed)


class Canvas:
    """A supersampled picture that is drawn on in sprite pixels."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE * SUPERSAMPLING, SIZE * SUPERSAMPLING), WHITE)
        self._draw = ImageDraw.Draw(self.image)
        self.origin: Point = (0.0, 0.0)

    def _at(self, points: Iterable[Point]) -> list[Point]:
        x0, y0 = self.origin
        return [((x + x0) * SUPERSAMPLING, (y + y0) * SUPERSAMPLING) for x, y in points]

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Colour, outline: float = OUTLINE) -> None:
        if outline:
            self.ellipse(centre, rx + outline / 2, ry + outline / 2, INK, 0)
            rx, ry = rx - outline / 2, ry - outline / 2
        x, y = centre
        (left, top), (right, bottom) = self._at([(x - rx, y - ry), (x + rx, y + ry)])
        self._draw.ellipse((left, top, right, bottom), fill=fill)

    def polygon(self, points: Sequence[Point], fill: Colour, outline: float = OUTLINE) -> None:
        self._draw.polygon(self._at(points), fill=fill)
        if outline:
            self.line([*points, points[0], points[1]], INK, outline)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        self._draw.line(self._at(points), fill=colour, width=round(width * SUPERSAMPLING), joint="curve")

    def limb(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """A rounded, outlined stroke: arms, legs, horns."""
        for colour, thick in ((INK, width + OUTLINE), (fill, width - OUTLINE)):
            self.line(points, colour, thick)
            for end in (points[0], points[-1]):
                self.ellipse(end, thick / 2, thick / 2, colour, 0)

    def arc(self, centre: Point, rx: float, ry: float, start: float, end: float, colour: Colour, width: float) -> None:
        """Part of an ellipse's edge; angles in degrees, clockwise from the right."""
        angles = [math.radians(start + (end - start) * i / 12) for i in range(13)]
        points = [(centre[0] + rx * math.cos(a), centre[1] + ry * math.sin(a)) for a in angles]
        self.line(points, colour, width)
        for tip in (points[0], points[-1]):
            self.ellipse(tip, width / 2, width / 2, colour, 0)

    def band(self, top: float, bottom: float, fill: Colour) -> None:
        """A horizontal band over the whole width, whatever the origin."""
        self._draw.rectangle((0, top * SUPERSAMPLING, SIZE * SUPERSAMPLING, bottom * SUPERSAMPLING), fill=fill)

    def split(self, x: float, colour: Colour, right: Colour) -> None:
        """Replaces one colour right of `x`, for coats of two halves."""
        left = round((x + self.origin[0]) * SUPERSAMPLING)
        pixels = np.array(self.image)
        half = pixels[:, left:]
        half[(half == colour).all(-1)] = right
        self.image = Image.fromarray(pixels)
        self._draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        return self.image.resize((SIZE, SIZE), Image.Resampling.BOX)


def star(centre: Point, radius: float) -> list[Point]:
    """The corners of a five-pointed star that stands on two of them."""
    corners = []
    for i in range(10):
        r, angle = radius if i % 2 == 0 else radius * 0.45, math.radians(36 * i - 90)
        corners.append((centre[0] + r * math.cos(angle), centre[1] + r * math.sin(angle)))
    return corners


def _background(canvas: Canvas, name: str, rng: random.Random) -> None:
    side = rng.choice((9, 55))
    plain: dict[str, Colour] = {
        "white background": (252, 252, 252),
        "pink background": (255, 196, 214),
        "yellow background": (255, 236, 130),
        "meadow": (140, 212, 250),
        "night": (28, 32, 84),
        "beach": (150, 220, 250),
        "forest": (178, 224, 170),
        "snow": (176, 206, 236),
        "sunset": (255, 150, 80),
    }
    canvas.band(0, SIZE, plain[name])
    if name == "meadow":
        canvas.ellipse((32, 72), 60, 28, (96, 196, 84), 0)
        canvas.ellipse((side, 9), 6, 6, (255, 226, 70), 0)
    elif name == "night":
        canvas.band(52, SIZE, (50, 52, 120))
        canvas.ellipse((side, 10), 7, 7, (255, 240, 170), 0)
        for x, y in ((64 - side, 8), (64 - side, 28), (side, 32)):
            canvas.polygon(star((x, y), 4), (255, 240, 170), 0)
    elif name == "beach":
        canvas.band(34, 48, (30, 130, 220))
        canvas.band(48, SIZE, (250, 224, 150))
    elif name == "forest":
        canvas.band(50, SIZE, (120, 84, 50))
        for x in (6, 22, 42, 58):
            canvas.polygon([(x - 13, 52), (x, 6), (x + 13, 52)], (34, 116, 66), 0)
    elif name == "snow":
        canvas.ellipse((12, 66), 34, 18, WHITE, 0)
        canvas.ellipse((52, 66), 34, 20, WHITE, 0)
        for x, y in ((7, 10), (57, 14), (5, 36), (58, 38), (32, 4)):
            canvas.ellipse((x, y), 2.6, 2.6, WHITE, 0)
    elif name == "sunset":
        canvas.band(0, 16, (214, 84, 120))
        canvas.band(16, 30, (240, 112, 96))
        canvas.ellipse((side, 44), 10, 10, (255, 232, 110), 0)
        canvas.band(48, SIZE, (110, 52, 110))


def _ears(canvas: Canvas, traits: Traits) -> None:
    coat = traits.coat
    if traits.ears == "antennae":
        for x in (16, 48):
            canvas.limb([(32 + (x - 32) * 0.6, 18), (x, 8)], INK, 3)
            canvas.ellipse((x, 7), 5.5, 5.5, coat.horns)
        return
    for side in (-1, 1):

        def at(x: float, y: float, side: int = side) -> Point:
            return (32 + side * x, y)

        if traits.ears == "cat ears":
            canvas.polygon([at(17, 22), at(16, 4), at(3, 14)], coat.main)
            canvas.polygon([at(14, 18), at(13.6, 9), at(7, 14)], coat.inner_ear, 0)
        elif traits.ears == "rabbit ears":
            canvas.ellipse(at(12, 11), 5.5, 12, coat.main)
            canvas.ellipse(at(12, 11), 2.2, 8, coat.inner_ear, 0)
        elif traits.ears == "bear ears":
            canvas.ellipse(at(13, 14), 6.5, 6.5, coat.main)
            canvas.ellipse(at(13, 14), 3.2, 3.2, coat.inner_ear, 0)
        elif traits.ears == "mouse ears":
            canvas.ellipse(at(17, 13), 10, 10, coat.main)
            canvas.ellipse(at(17, 13), 6, 6, coat.inner_ear, 0)
        elif traits.ears == "horns":
            canvas.limb([at(9, 17), at(15, 15), at(20, 11), at(21, 5)], coat.horns, 8)


def _droopy_ears(canvas: Canvas, traits: Traits) -> None:
    """Dog ears hang in front of the head."""
    if traits.ears == "dog ears":
        red, green, blue = (int(value * 0.72) for value in traits.coat.main)
        for side in (-1, 1):
            canvas.ellipse((32 + side * 17.5, 27), 5, 11.5, (red, green, blue))


HANDS: dict[str, tuple[Point, Point]] = {
    "arms down": ((19, 54), (45, 54)),
    "arms up": ((10, 36), (54, 36)),
    "waving": ((19, 54), (54, 36)),
    "arms spread": ((9, 47), (55, 47)),
}


def _body(canvas: Canvas, traits: Traits) -> None:
    coat = traits.coat
    cloth = OUTFIT_COLOURS.get(traits.outfit_colour, WHITE)
    for x in (27, 37):
        canvas.limb([(x, 54), (x, 59)], coat.main, 7)
    for shoulder, hand in zip(((26, 45), (38, 45)), HANDS[traits.pose], strict=True):
        elbow = ((shoulder[0] + hand[0]) / 2, (shoulder[1] + hand[1]) / 2)
        canvas.limb([shoulder, hand], coat.main, 7)
        if traits.outfit in ("shirt", "dress"):
            canvas.limb([shoulder, elbow], cloth, 8)
    canvas.ellipse((32, 48), 10, 10.5, coat.main)
    canvas.ellipse((32, 50), 6, 6.5, coat.belly, 0)
    if traits.mark == "star":
        canvas.polygon(star((32, 49.5), 7.5), GOLD, 0)
    elif traits.mark == "spot":
        canvas.ellipse((32, 50), 5, 5, RED, 0)
    _outfit(canvas, traits.outfit, cloth)


def _outfit(canvas: Canvas, outfit: str, cloth: Colour) -> None:
    if outfit == "shirt":
        canvas.polygon([(24, 40), (40, 40), (42, 54), (22, 54)], cloth)
    elif outfit == "dress":
        canvas.polygon([(26, 40), (38, 40), (46, 58), (18, 58)], cloth)
    elif outfit == "overalls":
        canvas.polygon([(22.5, 49), (41.5, 49), (41, 57), (23, 57)], cloth)
        canvas.polygon([(26, 43), (38, 43), (38, 52), (26, 52)], cloth, 0)
        for x in (26, 38):
            canvas.line([(x, 38), (x, 50)], cloth, 3)
    elif outfit == "scarf":
        canvas.limb([(36, 44), (39, 54)], cloth, 7)
        canvas.limb([(23, 42), (41, 42)], cloth, 7)


def _face(canvas: Canvas, traits: Traits) -> None:
    coat = traits.coat
    if coat.muzzle:
        canvas.ellipse((32, 33), 14, 7, coat.muzzle, 0)
    for x in (19.5, 44.5):
        canvas.ellipse((x, 34), 3.2, 2.2, BLUSH, 0)
    for x in (24, 40):
        if traits.eyewear == "glasses":
            canvas.ellipse((x, 27.5), 7.6, 7.6, (226, 244, 255), 0)
            canvas.arc((x, 27.5), 7.6, 7.6, 0, 360, (240, 60, 40), 2.2)
        if traits.expression == "closed eyes":
            canvas.arc((x, 29), 4, 4.5, 180, 360, INK, 2.2)
        else:
            canvas.ellipse((x, 27), 4.4, 5.2, EYES[traits.eyes], 1.6)
            canvas.ellipse((x + 1.2, 25), 1.7, 1.9, WHITE, 0)
    if traits.expression == "open mouth":
        canvas.ellipse((32, 36), 4, 3.6, (190, 40, 60), 1.6)
    elif traits.expression == "frown":
        canvas.arc((32, 39), 5, 4, 200, 340, INK, 2)
    else:
        canvas.arc((32, 33.5), 5, 4, 20, 160, INK, 2)


def _sunglasses(canvas: Canvas) -> None:
    canvas.line([(14, 24), (50, 24)], INK, 2.5)
    for x in (24, 40):
        canvas.polygon([(x - 7, 23), (x + 7, 23), (x + 5, 32), (x - 5, 32)], (30, 26, 40))
        canvas.line([(x - 3.5, 26), (x, 26)], (150, 170, 220), 2)


def _headwear(canvas: Canvas, headwear: str) -> None:
    if headwear == "top hat":
        canvas.polygon([(24, 1), (40, 1), (39, 14), (25, 14)], (58, 50, 66))
        canvas.line([(25, 11), (39, 11)], RED, 4)
        canvas.limb([(20, 15), (44, 15)], (58, 50, 66), 4)
    elif headwear == "witch hat":
        canvas.polygon([(33, -3), (42, 14), (22, 14)], (116, 60, 170))
        canvas.line([(24, 12), (41, 12)], GOLD, 3.5)
        canvas.limb([(16, 15.5), (48, 15.5)], (116, 60, 170), 5)
    elif headwear == "crown":
        canvas.polygon([(22, 17), (21, 4), (27, 10), (32, 2), (37, 10), (43, 4), (42, 17)], GOLD)
    elif headwear == "beanie":
        canvas.polygon([(18, 17), (20, 9), (26, 5), (38, 5), (44, 9), (46, 17)], (60, 170, 120))
        canvas.limb([(19, 17), (45, 17)], WHITE, 6)
        canvas.ellipse((32, 4), 4.5, 4.5, WHITE)
    elif headwear == "bow":
        canvas.polygon([(32, 12), (20, 5), (20, 19)], (250, 70, 130))
        canvas.polygon([(32, 12), (44, 5), (44, 19)], (250, 70, 130))
        canvas.ellipse((32, 12), 3.6, 3.6, (250, 70, 130))


def draw(traits: Traits, rng: random.Random) -> Image.Image:
    """The sprite: RGB, 64 x 64 px. `rng` moves the creature by up to two pixels and mirrors the scenery."""
    canvas = Canvas()
    _background(canvas, traits.background, rng)
    canvas.origin = (rng.uniform(-2, 2), rng.uniform(0, 2))
    _ears(canvas, traits)
    _body(canvas, traits)
    canvas.ellipse((32, 28), 18, 14.5, traits.coat.main)
    if traits.coat.right:
        canvas.split(32, traits.coat.main, traits.coat.right)
    _face(canvas, traits)
    if traits.eyewear == "sunglasses":
        _sunglasses(canvas)
    _droopy_ears(canvas, traits)
    _headwear(canvas, traits.headwear)
    return canvas.finish()


def random_colour(rng: random.Random) -> Colour:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def wild_traits(rng: random.Random) -> Traits:
    """Traits with free colours, halves, marks and horns, which no caption names: pictures for the VAE alone."""
    fur = Fur(
        main=random_colour(rng),
        belly=random_colour(rng),
        inner_ear=random_colour(rng),
        horns=random_colour(rng),
        right=random_colour(rng) if rng.random() < 0.3 else None,
        muzzle=random_colour(rng) if rng.random() < 0.3 else None,
    )
    return replace(random_traits(rng), fur=fur, ears=rng.choice(EARS + HORNS), mark=rng.choice(MARKS))


def doodle(rng: random.Random) -> Image.Image:
    """Free shapes in free colours, 64 x 64 px: they teach the VAE what no mascot of the base has."""
    canvas = Canvas()
    canvas.band(0, SIZE, random_colour(rng))
    canvas.band(rng.uniform(20, SIZE), SIZE, random_colour(rng))
    for _ in range(rng.randint(3, 9)):
        centre = (rng.uniform(0, SIZE), rng.uniform(0, SIZE))
        reach, colour = rng.uniform(3, 20), random_colour(rng)
        outline = rng.choice((0.0, OUTLINE))
        corners = [(centre[0] + rng.uniform(-1, 1) * reach, centre[1] + rng.uniform(-1, 1) * reach) for _ in range(4)]
        shape = rng.choice(("ellipse", "polygon", "star", "limb", "arc"))
        if shape == "ellipse":
            canvas.ellipse(centre, reach, reach * rng.uniform(0.5, 1.5), colour, outline)
        elif shape == "polygon":
            canvas.polygon(corners, colour, outline)
        elif shape == "star":
            canvas.polygon(star(centre, reach), colour, outline)
        elif shape == "limb":
            canvas.limb(corners, colour, rng.uniform(5, 9))
        else:
            canvas.arc(centre, reach, reach, rng.uniform(0, 360), rng.uniform(0, 360), colour, rng.uniform(1.5, 3))
    return canvas.finish()

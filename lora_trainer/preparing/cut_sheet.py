"""Pictures with the cuts drawn in: what is cut away is darkened, what was found is boxed."""

from __future__ import annotations

from collections.abc import Iterable

from PIL import Image, ImageDraw

from lora_trainer.dataset.buckets import Box, Size
from lora_trainer.dataset.crop import FACE, Cut, Focus

CELL, GAP = 240, 8  # pixels
COLUMNS = 5
PAPER, CUT, FACE_BOX, SUBJECT_BOX = "#c8c8c8", "#00a2ff", "#ff00c8", "#ffb300"


def cut_sheet(pictures: Iterable[tuple[Image.Image, Cut, Focus | None]]) -> Image.Image:
    """One RGB picture of them all, COLUMNS a row; a face's box is pink, a subject's orange. One is held at a time."""
    shown = [with_cut(image, cut, focus, CELL) for image, cut, focus in pictures]
    columns = max(1, min(COLUMNS, len(shown)))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (CELL + GAP) + GAP, rows * (CELL + GAP) + GAP), PAPER)
    for place, cell in enumerate(shown):
        x, y = place % columns * (CELL + GAP) + GAP, place // columns * (CELL + GAP) + GAP
        sheet.paste(cell, (x + (CELL - cell.width) // 2, y + (CELL - cell.height) // 2))
    return sheet


def with_cut(image: Image.Image, cut: Cut, focus: Focus | None, side: int) -> Image.Image:
    """The picture at `side` pixels the longer side, RGB, with cut and focus drawn in."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    shown = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    box = _shown_box(cut.box, scale, size)
    dark = Image.blend(shown, Image.new("RGB", size), 0.6)
    dark.paste(shown.crop(box), box[:2])
    draw = ImageDraw.Draw(dark)
    _outline(draw, box, CUT)
    if focus:
        _outline(draw, _shown_box(focus.box, scale, size), FACE_BOX if focus.what == FACE else SUBJECT_BOX)
    return dark


def _shown_box(box: Box, scale: float, size: Size) -> Box:
    left, top, right, bottom = (round(edge * scale) for edge in box)
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    return left, top, min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])


def _outline(draw: ImageDraw.ImageDraw, box: Box, colour: str) -> None:
    left, top, right, bottom = box
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)

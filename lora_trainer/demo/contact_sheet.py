"""Pictures in a table, with a word beside each row and above each column."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

CELL = 160  # pixels that a picture is shown at
GAP, LEFT, TOP = 8, 90, 64
PAPER, INK = "white", "#222222"


def contact_sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """`rows`: a label and a picture for each column. Pictures are shown at CELL pixels, small ones enlarged."""
    width = LEFT + len(columns) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, TOP + len(rows) * (CELL + GAP) + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), _font()
    for place, title in enumerate(columns):
        text = "\n".join(textwrap.wrap(title, 21)[:4])
        draw.multiline_text((LEFT + place * (CELL + GAP), 6), text, INK, font, spacing=1)
    for line, (label, pictures) in enumerate(rows):
        y = TOP + line * (CELL + GAP)
        draw.text((GAP, y + CELL // 2 - 8), label, INK, font)
        for place, picture in enumerate(pictures):
            shown = picture.convert("RGB").resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(shown, (LEFT + place * (CELL + GAP), y))
    return sheet


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font; before Pillow 10.1 it has one size only."""
    try:
        return ImageFont.load_default(13)
    except TypeError:
        return ImageFont.load_default()

"""Pictures in a table, with a word beside each row and above each column."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw

from lora_trainer.sheets.fonts import Font, drawable, font_for

CELL = (160, 160)
SMALLEST, LARGEST = 160, 512  # pixels, of a cell's longer side
MOST_PIXELS = 24_000_000  # of a sheet whose cells are chosen by `cell_for`
GAP, LINES = 8, 4
NARROWEST, WIDEST = 74, 220  # pixels, of the rows' labels
PAPER, INK, MISSING = "white", "#222222", "#e4e4e4"
SIZE, SPACING = 13, 2  # pixels, of the letters and between lines

Row = tuple[str, Sequence[Image.Image | None]]


def contact_sheet(
    columns: Sequence[str], rows: Sequence[Row], cell: tuple[int, int] = CELL, below: Sequence[str] = ()
) -> Image.Image:
    """`rows`: a label and a picture for each column, None where there is none; `cell`: width and height in pixels.

    A picture keeps its shape and fills its cell as far as that lets it, small ones enlarged. `below`: lines of words
    under them all.
    """
    width, height = cell
    labels = [label for label, _ in rows]
    font = font_for("".join((*columns, *labels, *below)), SIZE)
    left = 2 * GAP + round(min(max([NARROWEST, *(font.getlength(drawable(label, font)) for label in labels)]), WIDEST))
    right = left + len(columns) * (width + GAP)
    titles = [_lines(title, width, font) for title in columns]
    words = [_lines(line, right - 2 * GAP, font) for line in below]
    top = GAP + max(map(_height, titles), default=0) + GAP
    bottom = top + len(rows) * (height + GAP)
    sheet = Image.new("RGB", (right + GAP, bottom + sum(map(_height, words)) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, title in enumerate(titles):
        draw.multiline_text((left + place * (width + GAP), GAP), title, INK, font, spacing=SPACING)
    for line, (label, pictures) in enumerate(rows):
        y = top + line * (height + GAP)
        text = _lines(label, left - 2 * GAP, font)
        draw.multiline_text((GAP, y + (height - _height(text)) // 2), text, INK, font, spacing=SPACING)
        for place, picture in enumerate(pictures):
            _put(sheet, picture, (left + place * (width + GAP), y), cell)
    for number, text in enumerate(words):
        y = bottom + sum(map(_height, words[:number]))
        draw.multiline_text((GAP, y), text, INK, font, spacing=SPACING)
    return sheet


def cell_for(picture: tuple[int, int], count: int) -> tuple[int, int]:
    """The cell in which `count` pictures of this size make a sheet that is neither blurred nor too large to open."""
    longest = max(picture)
    scale = min(max(longest, SMALLEST), LARGEST) / longest
    fits = (MOST_PIXELS / (max(1, count) * picture[0] * picture[1])) ** 0.5
    width, height = (max(1, round(side * min(scale, fits))) for side in picture)
    return width, height


def _put(sheet: Image.Image, picture: Image.Image | None, at: tuple[int, int], cell: tuple[int, int]) -> None:
    if picture is None:
        sheet.paste(MISSING, (*at, at[0] + cell[0], at[1] + cell[1]))
        return
    scale = min(cell[0] / picture.width, cell[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    sheet.paste(shown, (at[0] + (cell[0] - size[0]) // 2, at[1] + (cell[1] - size[1]) // 2))


def _lines(text: str, width: int, font: Font) -> str:
    """The text in lines of at most this many pixels, as far as its words let it."""
    text = drawable(text, font)
    letters = max(4, int(width * len(text) / max(1.0, font.getlength(text)))) if text else 4
    return "\n".join(textwrap.wrap(text, letters, max_lines=LINES, placeholder=" ..."))


def _height(text: str) -> int:
    """Of lines of words, in pixels."""
    return (text.count("\n") + 1) * (SIZE + SPACING + 2)

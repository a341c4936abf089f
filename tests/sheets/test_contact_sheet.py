"""Sheets of pictures, looked at pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageFont

from lora_trainer.sheets import fonts
from lora_trainer.sheets.contact_sheet import LARGEST, MISSING, MOST_PIXELS, PAPER, Row, cell_for, contact_sheet


def of(colour: str, size: tuple[int, int] = (20, 20)) -> Image.Image:
    return Image.new("RGB", size, colour)


def cells(sheet: Image.Image, colour: str) -> tuple[int, int, int, int] | None:
    """The box of everything that has this colour."""
    wanted = np.array(ImageColor.getrgb(colour))
    return Image.fromarray((np.asarray(sheet) == wanted).all(-1)).getbbox()


def test_each_picture_stands_in_its_row_and_column() -> None:
    rows: list[Row] = [("one", [of("red"), of("lime")]), ("two", [of("blue"), None])]
    sheet = contact_sheet(["a", "b"], rows, (40, 40))
    red, lime, blue, missing = (cells(sheet, colour) for colour in ("red", "lime", "blue", MISSING))
    assert red and lime and blue and missing
    assert red[0] == blue[0] < lime[0] == missing[0] and red[1] == lime[1] < blue[1] == missing[1]
    assert [(box[2] - box[0], box[3] - box[1]) for box in (red, lime, blue, missing)] == [(40, 40)] * 4


def test_a_picture_keeps_its_shape() -> None:
    box = cells(contact_sheet(["a"], [("one", [of("red", (10, 20))])], (40, 40)), "red")
    assert box and (box[2] - box[0], box[3] - box[1]) == (20, 40)


def test_labels_are_written_and_none_into_a_picture() -> None:
    long = "zdm, a very long prompt, " * 20
    with_words = contact_sheet([long], [("a long label", [of("red")])], (40, 40))
    without = contact_sheet([""], [("", [of("red")])], (40, 40))
    assert len(with_words.getcolors() or ()) > len(without.getcolors() or ()) == 2
    box = cells(with_words, "red")
    assert box and with_words.crop(box).getcolors() == [(1600, (255, 0, 0))]
    assert without.getpixel((0, 0)) == ImageColor.getrgb(PAPER)


@pytest.mark.parametrize(("size", "count"), [((512, 768), 4), ((64, 64), 9), ((1024, 1024), 400), ((2048, 64), 3)])
def test_a_cell_has_the_pictures_shape_and_the_sheet_can_be_opened(size: tuple[int, int], count: int) -> None:
    width, height = cell_for(size, count)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
    assert max(width, height) <= LARGEST and width * height * count <= 1.02 * MOST_PIXELS
    assert max(width, height) >= 160 or width * height * count > 0.9 * MOST_PIXELS


def test_any_letters_can_be_drawn_by_the_oldest_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_system_font(name: str, size: int) -> ImageFont.FreeTypeFont:
        raise OSError(name)

    def bitmap(*size: int) -> ImageFont.ImageFont:
        if size:
            raise TypeError
        return ImageFont.load_default_imagefont()

    monkeypatch.setattr(fonts.ImageFont, "truetype", no_system_font)
    monkeypatch.setattr(fonts.ImageFont, "load_default", bitmap)
    sheet = contact_sheet(["ずんだもん"], [("第一", [of("red")])], (40, 40))
    assert cells(sheet, "red")


def test_words_stand_below_the_pictures() -> None:
    bare, told = (contact_sheet(["a"], [("one", [of("red")])], (40, 40), below) for below in ([], ["seed 42", "b"]))
    box = cells(told, "red")
    assert box == cells(bare, "red") and told.width == bare.width and told.height > bare.height
    assert box and len(told.crop((0, box[3], *told.size)).getcolors() or ()) > 2

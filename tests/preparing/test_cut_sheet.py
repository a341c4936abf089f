from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lora_trainer.dataset.crop import FACE, SUBJECT, Cut, Focus
from lora_trainer.preparing.cut_sheet import cut_sheet, with_cut

CUT = Cut((100, 0, 300, 200), (64, 64), False)


def test_the_cut_stays_bright_and_the_rest_is_darkened() -> None:
    shown = with_cut(Image.new("RGB", (400, 200), (100, 200, 250)), CUT, None, 200)
    assert shown.size == (200, 100)
    assert shown.getpixel((100, 50)) == (100, 200, 250)
    for outside in ((50, 20), (50, 180)):
        assert np.abs(np.asarray(shown, dtype=int)[outside] - (40, 80, 100)).max() <= 1


@pytest.mark.parametrize("what", [FACE, SUBJECT])
def test_what_was_found_is_outlined_in_its_own_colour(what: str) -> None:
    plain, boxed = (
        np.asarray(with_cut(Image.new("RGB", (400, 200), "white"), CUT, focus, 200), dtype=int)
        for focus in (None, Focus((150, 50, 250, 150), what))
    )
    rows, columns = np.nonzero((plain != boxed).any(-1))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (75, 25, 125, 75)
    inside = (plain != boxed)[28:72, 78:122]
    assert not inside.any()
    red, green, _ = boxed[25, 100]
    assert (green > 100) == (what == SUBJECT) and red > 200


@pytest.mark.parametrize("count, size", [(1, (256, 256)), (5, (1248, 256)), (7, (1248, 504))])
def test_a_sheet_holds_every_picture(count: int, size: tuple[int, int]) -> None:
    pictures = [(Image.new("L", (400, 200), 255), CUT, None)] * count
    sheet = cut_sheet(iter(pictures))
    assert (sheet.mode, sheet.size) == ("RGB", size)
    white = (np.asarray(sheet) == 255).all(-1).sum()
    assert white == count * (120 - 4) ** 2  # the bright part of each thumbnail, inside its frame


@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (16, 16)])
def test_the_narrowest_picture_can_be_shown(size: tuple[int, int]) -> None:
    focus = Focus((0, 0, 1, 1), FACE)
    assert max(with_cut(Image.new("RGB", size), Cut((0, 0, 1, 1), (8, 8), True), focus, 240).size) == 240

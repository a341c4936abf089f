"""From the original, as it came, to the picture that is trained on."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.dataset.pictures import check_picture, picture_file, read_picture

KEEP = "keep"  # of the setting `background`: transparent pixels stay so
# Measured on photos of 512 px: a quarter of level 6's time, for files a tenth larger.
PNG_LEVEL = 2


def develop(original: Path, png: Path, background: str) -> Path:
    """`original` itself, decoded once to see that it is whole, where its bytes can be trained on as they are.

    Else `png`, to which it writes what `read_picture` sees: alpha on `background`, or kept. Raises BadInput about the
    original, OSError about `png`.
    """
    file = picture_file(original)
    if file.plain and (background == KEEP or not file.alpha):
        check_picture(original)
        return original
    picture = read_picture(original, None if background == KEEP else background)
    picture.info.clear()  # else a profile or a turn that has been applied would be written beside the pixels
    picture.save(png, "PNG", compress_level=PNG_LEVEL)
    return png

"""A font that can draw a text: Pillow's own, or one of the system's where the text has other letters than Latin."""

from __future__ import annotations

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
LATIN = 0x250  # letters below are in Pillow's own font
SYSTEM = (  # names that Pillow finds in the systems' own folders
    "NotoSansCJK-Regular.ttc",
    "YuGothM.ttc",
    "meiryo.ttc",
    "msgothic.ttc",
    "msyh.ttc",
    "ヒラギノ角ゴシック W3.ttc",
    "PingFang.ttc",
    "wqy-microhei.ttc",
    "DejaVuSans.ttf",
)


def font_for(text: str, size: int) -> Font:
    """`size` in pixels. Without any font for its letters, the text is drawn as boxes."""
    if any(ord(letter) >= LATIN for letter in text):
        for name in SYSTEM:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1 it has one size only
        return ImageFont.load_default()


def drawable(text: str, font: Font) -> str:
    """The text with what the font refuses replaced: an old Pillow's own font has Latin letters only."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")

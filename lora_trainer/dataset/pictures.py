"""Picture files read as the eye sees them, and cut to their buckets."""

from __future__ import annotations

import importlib
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, JpegImagePlugin, TiffImagePlugin, UnidentifiedImageError

from lora_trainer.config import BadInput
from lora_trainer.dataset.buckets import Placement, Size
from lora_trainer.dataset.listing import unreadable


def _learn_avif() -> None:
    """A Pillow before 11.3 reads AVIF by a plugin, which the WebUIs have; where it is not, AVIF is not read."""
    if ".avif" not in Image.registered_extensions():
        with suppress(ImportError):
            importlib.import_module("pillow_avif")


_learn_avif()
_KNOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
PICTURE_ENDINGS = tuple(ending for ending in _KNOWN if ending in Image.registered_extensions())
_ENDINGS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",  # two JPEGs in one file, of which any reader sees the first
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tif",
    "AVIF": ".avif",
}
_READ = tuple(name for name in _ENDINGS if name in Image.OPEN)  # no other decoder of Pillow ever sees a file
_TRAINED_AS_THEY_ARE = ("PNG", "JPEG", "MPO", "WEBP", "BMP")

SMALLEST_SIDE = 16
MOST_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of RGB
DRAFT_SCALES = (1, 2, 4, 8)  # a JPEG decoder's reductions; the last brings the largest JPEG, 65,535 a side, under it

# Pillow's decoders raise all of these on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
_ORIENTATION, _TIFF_WIDTH, _TIFF_HEIGHT = 0x0112, 0x0100, 0x0101
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PictureFile:
    """What a picture's content says, whatever its name: the ending it should have; whether it has alpha; whether it is
    `plain`, so that any program sees in its bytes what `read_picture` gives (RGB, RGBA or grey of 8 bits in sRGB, one
    frame, not turned by EXIF, in a format that trainers read).
    """

    ending: str
    alpha: bool
    plain: bool


def picture_file(path: Path) -> PictureFile:
    """From the file's header alone. Raises BadInput."""
    with _opened(path) as image:
        form = str(image.format)
        still = form == "MPO" or not getattr(image, "is_animated", False)
        plain = form in _TRAINED_AS_THEY_ARE and still and _has_eight_bits(image) and _orientation(image) == 1
        plain = plain and _other_profile(image.info.get("icc_profile")) is None
        return PictureFile(_ENDINGS[form], _has_alpha(image), plain)


def picture_size(path: Path) -> Size:
    """(width, height) in pixels as seen (EXIF turned), from the file's header alone. Raises BadInput."""
    with _opened(path) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            # Pillow's releases differ in whether `size` is turned before the pixels are read.
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        return (height, width) if _orientation(image) >= 5 else (width, height)


def check_picture(path: Path) -> Size:
    """`picture_size`, after decoding the file to its end. Raises BadInput as `read_picture` would."""
    with _opened(path) as image:
        image.draft("RGB", (1, 1))  # a JPEG decodes fastest at an eighth, and still to its last byte
        image.load()
    return picture_size(path)


def read_picture(path: Path, background: str | None = "white") -> Image.Image:
    """The picture in sRGB (mode RGB), first frame, EXIF turned, its alpha composed on a background, a colour's name.

    With a background of None alpha is kept: mode RGBA where the file has any.

    A JPEG of more than MOST_PIXELS is decoded at a half, a quarter or an eighth of its size; any other such picture is
    refused. Raises BadInput in one sentence on what is empty, cut off, no picture, too small or too large.
    """
    return _turned(path, partial(_to_rgb, background=background))


def read_small(path: Path, side: int) -> Image.Image:
    """`read_picture` made to fit into `side` x `side` pixels; a large JPEG is not decoded at its full size for it."""

    def reduce(image: Image.Image) -> None:
        image.draft("RGB", (2 * side, 2 * side))

    picture = _turned(path, partial(_to_rgb, background="white"), reduce)
    picture.thumbnail((side, side))
    return picture


def read_alpha(path: Path) -> Image.Image:
    """The picture's alpha channel (mode L, the size of `read_picture`), all 255 where it has none. Raises BadInput."""
    return _turned(path, _to_alpha)


def read_mask(path: Path) -> Image.Image:
    """A mask picture as greys (mode L): white is trained, black is not. Raises BadInput."""
    return read_picture(path).convert("L")


def fit(image: Image.Image, placement: Placement, flip: bool = False) -> np.ndarray:
    """Resizes and crops to the placement's bucket: uint8, (H, W, 3) from RGB or (H, W) from L.

    As sd-scripts does: the mean over each new pixel's area where neither side grows, else Lanczos. Only the part inside
    the crop is computed, so that a long narrow picture costs no more than its bucket. `flip` mirrors the result.
    """
    (new_width, new_height), (left, top, right, bottom) = placement.resized, placement.crop
    if image.size == placement.resized:
        pixels = np.asarray(image.crop(placement.crop))
    elif image.width >= new_width and image.height >= new_height:
        rows = _area_means(np.asarray(image), new_height, top, bottom)
        columns = _area_means(rows.swapaxes(0, 1), new_width, left, right)
        pixels = np.rint(columns.swapaxes(0, 1)).astype(np.uint8)
    else:
        across, down = image.width / new_width, image.height / new_height
        box = (left * across, top * down, right * across, bottom * down)
        pixels = np.asarray(image.resize(placement.bucket, Image.Resampling.LANCZOS, box=box))
    return np.array(pixels[:, ::-1] if flip else pixels, order="C")  # a copy: Pillow's own memory is read-only


def jitter(pixels: np.ndarray, rng: random.Random) -> np.ndarray:
    """One picture in three with its hue turned by up to 16 degrees or a gamma of 0.95 to 1.05; uint8 (H, W, 3).

    The chances and ranges are sd-scripts' `color_aug`; the gamma here acts on 0..1, which keeps white white.
    """
    if rng.random() > 1 / 3:
        return pixels
    if rng.random() < 0.5:
        gamma = rng.uniform(0.95, 1.05)
        return np.rint(255 * (pixels / 255) ** gamma).astype(np.uint8)
    turn = round(rng.uniform(-16, 16) / 360 * 256)
    hue, saturation, value = Image.fromarray(pixels).convert("HSV").split()
    hue = hue.point([(level + turn) % 256 for level in range(256)])
    return np.array(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file's header read; whatever Pillow raises inside the block becomes BadInput."""
    try:
        with _open(path) as image:
            _check(path, image)
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        problem = "is an empty file" if path.stat().st_size == 0 else "is no picture that can be read"
        raise unreadable(path, problem, "Replace it, or remove it from the folder.") from error
    except _DAMAGE as error:
        raise unreadable(path, f"cannot be read to its end ({error})", "Copy it again, or remove it.") from error


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_READ)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        try:
            return JpegImagePlugin.JpegImageFile(path)
        except SyntaxError as error:
            raise Image.DecompressionBombError(str(path)) from error


def _check(path: Path, image: Image.Image) -> None:
    if image.mode == "F":
        raise unreadable(path, "has floating-point pixels, whose white is not known", "Save it with 8 or 16 bits.")
    if min(image.size) < SMALLEST_SIDE:
        problem = f"is too small ({image.width} x {image.height} pixels)"
        raise unreadable(path, problem, f"Use pictures of at least {SMALLEST_SIDE} pixels a side.")
    # A progressive JPEG is held whole by its decoder, so that reading it small saves nothing.
    baseline = isinstance(image, JpegImagePlugin.JpegImageFile) and not image.info.get("progressive")
    if image.width * image.height > MOST_PIXELS and not baseline:
        raise _too_large(path)


def _too_large(path: Path) -> BadInput:
    remedy = "Save it smaller: nothing is gained above 4096 pixels a side."
    return unreadable(path, f"has more than {MOST_PIXELS:,} pixels", remedy)


def _draft(image: Image.Image) -> None:
    """Lets a JPEG's decoder reduce a picture of more than MOST_PIXELS; leaves any other as it is."""
    scale = next(scale for scale in DRAFT_SCALES if image.width * image.height <= MOST_PIXELS * scale**2)
    if scale > 1:
        image.draft("RGB", (image.width // scale, image.height // scale))


def _turned(
    path: Path, convert: Callable[[Image.Image], Image.Image], reduce: Callable[[Image.Image], None] = _draft
) -> Image.Image:
    with _opened(path) as image:
        # Asked before the pixels are read, as `picture_size` asks; Pillow turns a TIFF itself as it reads it.
        turn = None if isinstance(image, TiffImagePlugin.TiffImageFile) else _TURNS.get(_orientation(image))
        reduce(image)
        image.load()
        picture = convert(image)
    return picture.transpose(turn) if turn is not None else picture


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # asking Pillow would decode the whole picture to look behind it
    try:
        stated = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return stated if stated in _TURNS else 1


def _to_rgb(image: Image.Image, background: str | None) -> Image.Image:
    profile = image.info.get("icc_profile")
    image = _eight_bit(image)
    if not _has_alpha(image):
        return _to_srgb(image, profile)
    pixels = image.convert("RGBA")
    colour = _to_srgb(pixels.convert("RGB"), profile)
    colour.putalpha(pixels.getchannel("A"))
    if background is None:
        return colour
    return Image.alpha_composite(Image.new("RGBA", colour.size, background), colour).convert("RGB")


def _to_alpha(image: Image.Image) -> Image.Image:
    image = _eight_bit(image)
    if not _has_alpha(image):
        return Image.new("L", image.size, 255)
    return image.convert("RGBA").getchannel("A")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _has_eight_bits(image: Image.Image) -> bool:
    """Pillow gives RGB of 16 bits the mode of 8; only its decoder's orders tell."""
    return image.mode in ("RGB", "RGBA", "L") and ";16" not in str(getattr(image, "tile", ""))


def _eight_bit(image: Image.Image) -> Image.Image:
    """Greys of 16 bits scaled to 8 (Pillow's own conversion clips them)."""
    if not image.mode.startswith("I"):
        return image
    levels = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
    return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the picture's own colour profile; by Pillow's plain rule where it has none or one that does not serve."""
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    source = _other_profile(profile)
    if source is not None:
        try:
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _other_profile(profile: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The colour profile that a picture must be converted from; None where that is none, sRGB or not readable."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return None if "srgb" in ImageCms.getProfileDescription(source).lower() else source
    except (ImageCms.PyCMSError, OSError):
        return None


def _area_means(pixels: np.ndarray, length: int, start: int, stop: int) -> np.ndarray:
    """Axis 0 in `length` equal parts, the mean of parts start..stop-1: float32, (stop - start, ...).

    Counted in units of 1 / length of a pixel, in which parts and pixels both begin at whole numbers: a pixel on an edge
    weighs by its overlap, and the weights are exact.
    """
    total = pixels.shape[0]
    means = np.empty((stop - start, *pixels.shape[1:]), dtype=np.float32)
    for part in range(start, stop):
        first, last = part * total // length, -(-(part + 1) * total // length)
        edges = np.arange(first, last + 1) * length
        weights = np.minimum(edges[1:], (part + 1) * total) - np.maximum(edges[:-1], part * total)
        means[part - start] = np.tensordot(weights.astype(np.float32), pixels[first:last].astype(np.float32), 1) / total
    return means

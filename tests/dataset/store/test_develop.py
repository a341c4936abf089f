"""Originals that are trained on as they are, and those of which a PNG is made."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lora_trainer.config import BadInput
from lora_trainer.dataset.pictures import PICTURE_ENDINGS, picture_file, picture_size
from lora_trainer.dataset.store.develop import develop

SIZE = (40, 30)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def drawn(mode: str) -> Image.Image:
    levels = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def as_trained(original: Path, background: str = "white") -> Path:
    return develop(original, original.with_name("developed.png"), background)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp"])
def test_plain_pictures_are_trained_on_as_they_are(tmp_path: Path, ending: str, mode: str) -> None:
    path = tmp_path / f"a{ending}"
    drawn(mode).save(path)
    assert as_trained(path) == path
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("extra", [{"icc_profile": SRGB}, {"exif": turned(1)}])
def test_srgb_and_an_upright_exif_are_plain(tmp_path: Path, extra: dict[str, Any]) -> None:
    drawn("RGB").save(tmp_path / "a.jpg", **extra)
    assert as_trained(tmp_path / "a.jpg") == tmp_path / "a.jpg"


@pytest.mark.parametrize(
    ("name", "mode", "extra"),
    [
        ("a.jpg", "RGB", {"exif": turned(6)}),
        ("a.png", "RGB", {"exif": turned(8)}),
        ("a.webp", "RGB", {"exif": turned(5)}),
        ("a.jpg", "CMYK", {}),
        ("a.png", "P", {}),
        ("a.png", "1", {}),
        ("a.png", "LA", {}),
        ("a.png", "RGBA", {}),
        ("a.webp", "RGBA", {"lossless": True}),
        ("a.gif", "P", {}),
        ("a.tif", "RGB", {}),
        ("a.tif", "CMYK", {}),
        ("a.jpg", "L", {"icc_profile": LAB}),
    ],
)
def test_a_png_is_made_of_the_others(tmp_path: Path, name: str, mode: str, extra: dict[str, Any]) -> None:
    path = tmp_path / name
    drawn(mode).save(path, **extra)
    before = path.read_bytes()
    made = as_trained(path)
    with Image.open(made) as image:
        assert (made.name, image.format, image.mode) == ("developed.png", "PNG", "RGB")
        assert not {"icc_profile", "exif", "transparency"} & image.info.keys()
        assert image.size == picture_size(path)
    assert path.read_bytes() == before


def test_a_turn_is_made_once(tmp_path: Path) -> None:
    """A photo whose upper half is white, held sideways: white is on its right, and nothing says to turn it again."""
    picture = Image.new("RGB", (40, 30))
    picture.paste("white", (0, 0, 40, 15))
    picture.save(tmp_path / "a.jpg", exif=turned(6), quality=100)
    made = np.asarray(Image.open(as_trained(tmp_path / "a.jpg")))[:, :, 0]
    assert made.shape == (40, 30)
    assert made[:, :14].max() < 10 and made[:, 16:].min() > 245
    assert as_trained(tmp_path / "developed.png") == tmp_path / "developed.png"


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("grey", 128), ("black", 0)])
def test_alpha_is_composed_on_the_background(tmp_path: Path, background: str, level: int) -> None:
    """An alpha of 204 of 255 leaves a fifth of the background."""
    Image.new("RGBA", SIZE, (34, 34, 34, 204)).save(tmp_path / "a.png")
    seen = Image.open(as_trained(tmp_path / "a.png", background)).getpixel((3, 3))
    assert seen == (round(34 * 0.8 + level * 0.2),) * 3


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_alpha_is_kept_in_the_file_as_it_came(tmp_path: Path, name: str) -> None:
    drawn("RGBA").save(tmp_path / name)
    assert as_trained(tmp_path / name, "keep") == tmp_path / name


@pytest.mark.parametrize(("name", "mode"), [("a.tif", "RGBA"), ("a.png", "LA"), ("a.gif", "RGBA")])
def test_alpha_is_kept_in_a_png(tmp_path: Path, name: str, mode: str) -> None:
    picture = drawn(mode)
    picture.putalpha(Image.linear_gradient("L").resize(SIZE).point(lambda level: 255 * (level > 127)))
    picture.save(tmp_path / name)
    made = Image.open(as_trained(tmp_path / name, "keep"))
    assert made.mode == "RGBA"
    assert (np.asarray(made)[:, :, 3] == np.asarray(picture.getchannel("A"))).all()


def test_kept_alpha_is_turned_too(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (40, 30), (9, 9, 9, 0))
    picture.paste((9, 9, 9, 255), (0, 0, 40, 15))
    picture.save(tmp_path / "a.png", exif=turned(3))
    alpha = np.asarray(Image.open(as_trained(tmp_path / "a.png", "keep")))[:, :, 3]
    assert (alpha[:15] == 0).all() and (alpha[15:] == 255).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(("colour", "channels", "mode"), [(2, 3, "RGB"), (6, 4, "RGBA"), (0, 1, "RGB")])
def test_sixteen_bits_become_eight(tmp_path: Path, colour: int, channels: int, mode: str) -> None:
    """PNGs of 16 bits a channel, written by hand: Pillow can write none with colours."""
    levels = np.random.default_rng(2).integers(0, 65536, (30, 40, channels), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", 40, 30, 16, colour, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    made = as_trained(tmp_path / "a.png", "keep")
    assert made.read_bytes()[24] == 8  # the bit depth in its header
    pixels = np.asarray(Image.open(made).convert(mode), dtype=float)
    assert np.abs(pixels - levels / 257).max() < 1


def test_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif", "a.png", "a.webp"):
        extra: dict[str, Any] = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **extra)
        made = as_trained(tmp_path / name)
        assert made.name == "developed.png", name
        assert Image.open(made).getpixel((3, 3)) == (255, 0, 0), name


@pytest.mark.skipif(".avif" not in PICTURE_ENDINGS, reason="this Pillow cannot read AVIF")
def test_avif_becomes_a_png(tmp_path: Path) -> None:
    Image.new("RGB", SIZE, (200, 100, 50)).save(tmp_path / "a.avif", quality=100)
    made = Image.open(as_trained(tmp_path / "a.avif"))
    assert np.abs(np.array(made.getpixel((5, 5))) - (200, 100, 50)).max() < 6


def test_an_ending_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "17"
    drawn("RGB").save(path, "JPEG")
    assert (as_trained(path), picture_file(path).ending) == (path, ".jpg")


@pytest.mark.parametrize("form", ["PPM", "PCX", "EPS", "TGA"])
def test_no_other_format_is_read(tmp_path: Path, form: str) -> None:
    """Some of Pillow's decoders hand a file to another program."""
    drawn("RGB").save(tmp_path / "a.png", form)
    with pytest.raises(BadInput, match="no picture that can be read"):
        as_trained(tmp_path / "a.png")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp", ".gif", ".tif"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    drawn("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BadInput):
        as_trained(path)


def test_a_header_of_60000_pixels_a_side_is_refused(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(BadInput, match="more than 89,478,485 pixels"):
        as_trained(tmp_path / "a.png")


@pytest.mark.parametrize("background", ["white", "keep"])
def test_a_full_disk_is_no_fault_of_the_picture(tmp_path: Path, background: str) -> None:
    drawn("RGBA").save(tmp_path / "a.tif")
    with pytest.raises(OSError):
        develop(tmp_path / "a.tif", tmp_path / "no folder" / "a.png", background)

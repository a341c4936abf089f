from __future__ import annotations

import random
import struct
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from lora_trainer.config import BadInput
from lora_trainer.dataset import pictures
from lora_trainer.dataset.buckets import Buckets, Placement, make_buckets, place
from lora_trainer.dataset.pictures import (
    MOST_PIXELS,
    check_picture,
    fit,
    jitter,
    picture_size,
    read_alpha,
    read_mask,
    read_picture,
)

WHITE, RED = (255, 255, 255), (255, 0, 0)


def test_avif_is_read_by_the_plugin_where_pillow_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pillow_avif.py").write_text("LOADED = True", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".png": "PNG", ".avif": "AVIF"})
    pictures._learn_avif()
    assert "pillow_avif" not in sys.modules
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".png": "PNG"})
    try:
        pictures._learn_avif()
        assert sys.modules["pillow_avif"].LOADED
    finally:
        sys.modules.pop("pillow_avif", None)


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(width: int, height: int) -> Placement:
    """Resizing alone, with nothing cropped."""
    return Placement((width, height), (width, height), (0, 0, width, height))


# A picture whose four corners tell how it was turned; EXIF orientation -> the corners as they must be seen.
CORNERS = [[10, 60], [120, 200]]
SEEN = {
    1: [[10, 60], [120, 200]],
    2: [[60, 10], [200, 120]],
    3: [[200, 120], [60, 10]],
    4: [[120, 200], [10, 60]],
    5: [[10, 120], [60, 200]],
    6: [[120, 10], [200, 60]],
    7: [[200, 60], [120, 10]],
    8: [[60, 200], [10, 120]],
}


@pytest.mark.parametrize("ending", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", SEEN)
def test_exif_turns_picture_and_size(tmp_path: Path, ending: str, orientation: int) -> None:
    path = tmp_path / f"turned{ending}"
    grey = np.kron(np.array(CORNERS, dtype=np.uint8), np.ones((24, 32), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(grey).convert("RGB").save(path, exif=exif)
    seen = np.asarray(read_picture(path))[:, :, 0].astype(int)
    height, width = seen.shape
    corners = seen[[[8], [height - 8]], [8, width - 8]]
    assert np.abs(corners - SEEN[orientation]).max() < 12  # what JPEG and WebP lose
    assert picture_size(path) == check_picture(path) == (width, height)
    assert (width, height) == ((64, 48) if orientation < 5 else (48, 64))


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_broken_exif_is_passed_over(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    Image.new("RGB", (32, 24)).save(path, exif=b"Exif\0\0nonsense")
    assert read_picture(path).size == picture_size(path) == (32, 24)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composed_on_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 51)).convert(mode)
    picture.save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((5, 5)) == (204, 204, 204)
    assert read_alpha(tmp_path / "a.png").getextrema() == (51, 51)


@pytest.mark.parametrize("ending", [".png", ".gif"])
def test_a_palettes_transparent_colour_is_white(tmp_path: Path, ending: str) -> None:
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.paste(1, (16, 0, 32, 32))
    path = tmp_path / f"a{ending}"
    picture.save(path, transparency=0)
    image = read_picture(path)
    assert (image.getpixel((4, 4)), image.getpixel((20, 4))) == (WHITE, RED)
    alpha = read_alpha(path)
    assert (alpha.getpixel((4, 4)), alpha.getpixel((20, 4))) == (0, 255)


def test_without_alpha_everything_counts(tmp_path: Path) -> None:
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")
    alpha = read_alpha(tmp_path / "a.png")
    assert (alpha.mode, alpha.size, alpha.getextrema()) == ("L", (32, 24), (255, 255))


def test_alpha_turns_with_its_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGBA", (32, 24), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 32, 12))
    picture.save(tmp_path / "a.png", exif=exif)
    alpha = np.asarray(read_alpha(tmp_path / "a.png"))
    assert alpha.shape == (32, 24)
    assert (alpha[:, :12] == 0).all()
    assert (alpha[:, 12:] == 255).all()


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_greys_are_scaled(tmp_path: Path, ending: str) -> None:
    levels = np.repeat(np.array([0, 128, 257, 32768, 65535], dtype=np.uint16), 20)
    path = tmp_path / f"a{ending}"
    Image.fromarray(np.tile(levels, (20, 1))).save(path)
    image = read_picture(path)
    assert [image.getpixel((x, 0)) for x in range(5, 100, 20)] == [(grey,) * 3 for grey in (0, 0, 1, 128, 255)]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((20, 20), dtype=np.float32)).save(tmp_path / "a.tif")
    for read in (read_picture, check_picture):
        with pytest.raises(BadInput, match="floating-point"):
            read(tmp_path / "a.tif")


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    image = read_picture(tmp_path / "a.jpg")
    assert image.mode == "RGB"
    assert np.abs(np.array(image.getpixel((9, 9))) - RED).max() <= 2


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    """A profile whose red and blue have changed places, made from sRGB's own: the colours change with it."""
    profile = swapped(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    path = tmp_path / "a.png"
    Image.new("RGB", (20, 20), RED).save(path, icc_profile=profile)
    red, green, blue = read_picture(path).getpixel((5, 5))  # type: ignore[misc]
    assert blue > 250
    assert max(red, green) < 5


def swapped(profile: bytes) -> bytes:
    """An ICC profile with its tags rXYZ and bXYZ exchanged, and a description that does not say sRGB."""
    other = profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    return other.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB built", b"swap built")


@pytest.mark.parametrize("profile", [b"nonsense", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_unfit_profile_is_passed_over(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (20, 20), RED).save(tmp_path / "a.png", icc_profile=profile)
    assert read_picture(tmp_path / "a.png").getpixel((5, 5)) == RED


def test_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "a.gif").getpixel((5, 5)) == RED


def test_mask_is_grey(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(tmp_path / "a.png")
    mask = read_mask(tmp_path / "a.png")
    assert (mask.mode, mask.getextrema()) == ("L", (255, 255))


def damaged(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tif"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.9])
def test_cut_off_file_is_refused_in_a_sentence(tmp_path: Path, ending: str, keep: float) -> None:
    path = tmp_path / f"写真 🐈{ending}"
    Image.fromarray(noise(96, 96)).save(path)
    damaged(path, keep)
    for read in (read_picture, check_picture):
        with pytest.raises(BadInput) as caught:
            read(path)
        assert len(caught.value.problems) == 1
        assert f"{tmp_path.name}/写真 🐈{ending}" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty file"),
        (b"not a picture", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"\xff\xd8\xff", "no picture"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    for read in (picture_size, check_picture, read_picture, read_alpha):
        with pytest.raises(BadInput, match=sentence):
            read(tmp_path / "a.jpg")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own remarks on what it passes over
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["png", "jpeg", "gif", "tiff", "webp"]), st.data())
def test_damage_anywhere_never_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.bin"
    Image.fromarray(noise(20, 20)).save(path, format=kind)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        check_picture(path)
        assert read_picture(path).mode == "RGB"
    except BadInput as error:
        assert len(error.problems) == 1


def test_one_pixel_is_too_small(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    with pytest.raises(BadInput, match=r"too small \(1 x 1 pixels\).*at least 16"):
        read_picture(tmp_path / "a.png")


def huge_png(path: Path, side: int) -> None:
    """A few bytes whose header states a great picture."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))]
    body = b"IDAT" + zlib.compress(b"")
    chunks.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_picture_of_20000_pixels_is_refused(tmp_path: Path, side: int) -> None:
    huge_png(tmp_path / "a.png", side)
    for read in (picture_size, read_picture):
        with pytest.raises(BadInput, match=f"more than {MOST_PIXELS:,} pixels.*smaller"):
            read(tmp_path / "a.png")


def test_jpeg_of_20000_pixels_is_read_reduced(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    grey = Image.new("L", (20_000, 4_500), 0)
    grey.paste(200, (10_000, 0, 20_000, 4_500))
    grey.save(path)
    image = read_picture(path)
    assert picture_size(path) == (20_000, 4_500)
    assert image.size == (10_000, 2_250)
    pixels = fit(image, place((20_000, 4_500), Buckets((64, 64), make_buckets((64, 64), 32, 128, 8), 8)))
    assert pixels[:, 2].max() < 5
    assert pixels[:, -3].min() > 195


def test_progressive_jpeg_of_20000_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("L", (16, 17)).save(path, progressive=True)
    path.write_bytes(path.read_bytes().replace(struct.pack(">HH", 17, 16), struct.pack(">HH", 20_000, 20_000)))
    with pytest.raises(BadInput, match="more than"):
        picture_size(path)


def test_long_narrow_picture_costs_no_more_than_its_bucket() -> None:
    placement = place((20_000, 16), Buckets((1024, 1024), ((1024, 1024),), 64))
    assert placement.resized[0] == 1_280_000
    assert fit(Image.new("RGB", (20_000, 16), RED), placement).shape == (1024, 1024, 3)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers())
def test_shrinking_by_whole_numbers_is_the_block_mean(
    across: int, down: int, width: int, height: int, seed: int
) -> None:
    pixels = noise(width * across, height * down, abs(seed))
    mean = pixels.reshape(height, down, width, across, 3).mean(axis=(1, 3), dtype=np.float64)
    assert np.abs(fit(Image.fromarray(pixels), whole(width, height)) - mean).max() <= 0.5001


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_shrinking_weighs_by_overlap(width: int, height: int, data: st.DataObject) -> None:
    new_width, new_height = data.draw(st.integers(1, width)), data.draw(st.integers(1, height))
    pixels = noise(width, height)
    expected = exact(height, new_height) @ pixels[:, :, 0].astype(np.float64) @ exact(width, new_width).T
    shrunk = fit(Image.fromarray(pixels), whole(new_width, new_height))
    assert np.abs(shrunk[:, :, 0] - expected).max() <= 0.5001


def exact(old: int, new: int) -> np.ndarray:
    """The share of each old pixel in each new one, from the definition, in fractions."""
    scale = Fraction(old, new)
    overlap = [
        [
            max(Fraction(0), min((i + 1) * scale, Fraction(j + 1)) - max(i * scale, Fraction(j))) / scale
            for j in range(old)
        ]
        for i in range(new)
    ]
    return np.array(overlap, dtype=np.float64)


@given(st.integers(16, 90), st.integers(16, 90), st.integers(0, 255))
def test_constant_picture_stays_constant(width: int, height: int, level: int) -> None:
    image = Image.new("RGB", (width, height), (level, 255 - level, 7))
    pixels = fit(image, place((width, height), Buckets((32, 32), make_buckets((32, 32), 16, 64, 8), 8)))
    assert (pixels == (level, 255 - level, 7)).all()


@pytest.mark.parametrize("size", [(301, 200), (40, 37), (64, 48), (64, 100)])
def test_only_the_crop_is_computed_and_is_the_same(size: tuple[int, int]) -> None:
    """Shrunk, enlarged, neither, and off centre: as if the whole were resized and then cut."""
    image = Image.fromarray(noise(*size))
    placement = place(size, Buckets((64, 48), ((64, 48),), 8), random.Random(3))
    left, top, right, bottom = placement.crop
    resized = fit(image, whole(*placement.resized)).astype(int)
    assert np.abs(fit(image, placement) - resized[top:bottom, left:right]).max() <= 1


def test_enlarging_is_lanczos() -> None:
    image = Image.fromarray(noise(20, 30))
    expected = np.asarray(image.resize((40, 60), Image.Resampling.LANCZOS))
    assert (fit(image, whole(40, 60)) == expected).all()
    assert (fit(image, whole(20, 60)) == np.asarray(image.resize((20, 60), Image.Resampling.LANCZOS))).all()


def test_flip_mirrors_the_cut_picture() -> None:
    image = Image.fromarray(noise(50, 30))
    placement = place(image.size, Buckets((16, 16), ((16, 16),), 8))
    flipped = fit(image, placement, flip=True)
    assert (flipped == fit(image, placement)[:, ::-1]).all()
    assert flipped.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (10, 10)])
def test_pixels_may_be_written_to(size: tuple[int, int]) -> None:
    """As torch.from_numpy asks."""
    assert fit(Image.new("RGB", size), whole(16, 16)).flags["WRITEABLE"]


def test_mask_is_fitted_like_its_picture() -> None:
    grey = Image.fromarray(noise(50, 30)[:, :, 0])
    placement = place(grey.size, Buckets((16, 16), ((16, 16),), 8))
    assert (fit(grey, placement) == fit(grey.convert("RGB"), placement)[:, :, 0]).all()


def test_jitter_leaves_two_in_three_alone_and_changes_little() -> None:
    rng = random.Random(0)
    pixels = noise(16, 16)
    results = [jitter(pixels, rng) for _ in range(600)]
    changed = [result for result in results if (result != pixels).any()]
    assert 140 < len(changed) < 260
    assert all(result.shape == pixels.shape and result.dtype == np.uint8 for result in results)


def test_jitter_keeps_black_grey_and_white_in_hue_turns() -> None:
    greys = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 3).reshape(1, 3, 3)
    for seed in range(60):
        black, grey, white = jitter(greys, random.Random(seed))[0]
        assert (black == 0).all()
        assert (white == 255).all()
        assert np.ptp(grey) == 0
        assert abs(int(grey[0]) - 128) <= 5

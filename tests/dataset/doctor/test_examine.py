from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from lora_trainer.config import BadInput, Config
from lora_trainer.dataset.buckets import buckets_for
from lora_trainer.dataset.doctor.examine import Checkup, examine
from lora_trainer.dataset.doctor.findings import KINDS, Finding
from tests.dataset.doctor.scenes import cartoon, scene

AT_512 = buckets_for(Config().for_family("sd15"))
Put = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "set"


@pytest.fixture
def put(folder: Path) -> Put:
    """Puts a picture, and its caption unless that is None, into the set's only folder."""

    def write(name: str, picture: Image.Image, caption: str | None = "zdm, hat, cape", **options: Any) -> Path:
        path = folder / "10_zdm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, **options)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return write


def words(text: str) -> int:
    """As many tokens as words and commas, which is what CLIP has for common words."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def found(checkup: Checkup, *kinds: str) -> list[Finding]:
    """All findings, which are of these kinds in this order."""
    assert [finding.kind for finding in checkup.findings] == list(kinds), checkup.findings
    return list(checkup.findings)


def test_a_sound_set_has_nothing_to_put_right(folder: Path, put: Put) -> None:
    for number in range(3):
        put(f"{number}.png", scene(number))
    put("drawn.png", cartoon(0.5))
    told: list[tuple[int, int]] = []
    checkup = examine(folder, AT_512, count_tokens=words, progress=lambda done, of: told.append((done, of)))
    found(checkup)
    assert checkup.pictures == 4 and [row.picture.name for row in checkup.trained] == [
        *("0.png", "1.png", "2.png", "drawn.png"),
    ]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_any_folder_can_be_examined(folder: Path, put: Put) -> None:
    put("1.png", scene(1))
    assert examine(folder / "10_zdm", AT_512).pictures == 1
    assert sorted(path.name for path in folder.rglob("*")) == ["1.png", "1.txt", "10_zdm"], "nothing is written"


def test_the_table_says_where_a_picture_is_trained_and_what_is_cut(folder: Path, put: Put) -> None:
    put("a.png", scene(1))
    put("b.png", scene(2).resize((1000, 500)))
    put("c.png", scene(3).resize((600, 600)))
    square, wide, larger = examine(folder, AT_512).trained
    assert (square.size, square.bucket, square.cropped, square.enlarged) == ((512, 512), (512, 512), 0, 1)
    # Of the sizes in steps of 64, 704 x 320 is the nearest to 2 : 1; of 704 x 352, 32 rows go.
    assert (wide.bucket, wide.cropped, wide.enlarged) == ((704, 320), pytest.approx(32 / 352), 1)
    assert (larger.bucket, larger.cropped, larger.enlarged) == ((512, 512), 0, 1)


def test_unreadable_pictures_and_captions(folder: Path, put: Put) -> None:
    path = put("1.png", scene(1))
    path.write_bytes(path.read_bytes()[:5000])
    put("2.png", scene(2)).with_suffix(".txt").write_bytes("黒髪".encode("cp932"))
    first, second = found(examine(folder, AT_512), "unreadable", "unreadable")
    assert first.files == first.leave_out == (path,) and "10_zdm/1.png: cannot be read to its end" in first.sentence
    assert second.files == (folder / "10_zdm" / "2.png",) and "2.txt: is not text in UTF-8" in second.sentence


def test_a_picture_that_fits_into_no_bucket(folder: Path, put: Put) -> None:
    path = put("1.png", scene(1).resize((40, 300)))
    config = Config(bucket_no_upscale=True).for_family("sd15")
    (finding,) = found(examine(folder, buckets_for(config)), "unreadable")
    assert finding.files == (path,) and finding.sentence.startswith(
        "10_zdm/1.png: a picture of 40 x 300 fills no bucket"
    )


def test_too_small_says_how_much_it_would_be_enlarged(folder: Path, put: Put) -> None:
    put("1.png", scene(1, 256))
    put("2.png", scene(2, 510))
    (small,) = found(examine(folder, AT_512), "too-small")
    assert "10_zdm/1.png: 256 x 256 pixels would be enlarged 2.00 times" in small.sentence
    assert not found(examine(folder, buckets_for(Config(resolution=(256, 256)).for_family("sd15"))))


def test_blurred_at_the_size_it_is_trained_at(folder: Path, put: Put) -> None:
    blurred = scene(1).filter(ImageFilter.GaussianBlur(3))
    put("1.jpg", blurred, quality=95)
    put("2.png", scene(2, 2048).filter(ImageFilter.GaussianBlur(3)))  # of which a quarter is left at 512
    put("3.png", cartoon(0.5).filter(ImageFilter.GaussianBlur(3)))
    one, three = found(examine(folder, AT_512), "blurred", "blurred")
    assert "10_zdm/1.jpg" in one.sentence and "10_zdm/3.png" in three.sentence
    assert 2.5 < float(re.findall(r"by (\d\.\d) pixels", one.sentence)[0]) < 3.5


def test_duplicates_and_near_duplicates(folder: Path, put: Put) -> None:
    picture = scene(1, 700)
    bitmap = put("a.bmp", picture, None)
    png = put("b.png", picture)
    small = put("c.jpg", picture.resize((540, 540)), quality=80)
    large = put("d.webp", picture.resize((900, 900)), quality=90)
    put("e.png", scene(2))
    same, near, _ = found(examine(folder, AT_512), "duplicate", "near-duplicate", "no-caption")
    assert same.files == (png, bitmap) and same.leave_out == (bitmap,), "what has a caption is kept"
    assert near.files == (large, png, small) and near.leave_out == (png, small), "the largest is kept"
    assert "10_zdm/b.png, 10_zdm/a.bmp have the same pixels" in same.sentence


def test_the_same_size_and_thumbnail_are_not_the_same_pixels(folder: Path, put: Put) -> None:
    picture = scene(1)
    other = picture.copy()
    other.putpixel((100, 100), (255, 0, 0) if picture.getpixel((100, 100)) != (255, 0, 0) else (0, 0, 255))
    put("a.png", picture)
    put("b.png", other)
    found(examine(folder, AT_512), "near-duplicate")


def test_captions_without_picture_pictures_without_caption_and_empty_ones(folder: Path, put: Put) -> None:
    none = put("a.png", scene(1), None)
    empty = put("b.png", scene(2), " \n\n")
    put("c.png", scene(3), None).with_suffix(".caption").write_text("zdm", encoding="utf-8")
    put("d.png", scene(4))
    put("d.jpg", scene(5))  # of one name, they share their caption
    orphan = folder / "10_zdm" / "z.txt"
    orphan.write_text("zdm, hat", encoding="utf-8")
    first, second, third = found(examine(folder, AT_512), "no-caption", "empty-caption", "no-picture")
    assert (first.files, second.files, third.files) == ((none,), (empty,), (orphan,))
    assert first.leave_out == (none,) and third.leave_out == ()


@pytest.mark.parametrize(
    ("caption", "tokens", "lost"),
    [
        ("one, two, three, four, green hair, five, six", 14, "green hair, five, six"),
        ("one, two, three, four, five, six, seven", 13, "six, seven"),
        ("a photo of a dog that runs over the green field in the sun.", 15, "field in the sun."),
        ("緑髪の少女が森の中で笑っている絵", None, "中で笑っている絵"),
    ],
)
def test_what_the_length_limit_cuts_off_is_named(
    folder: Path, put: Put, caption: str, tokens: int | None, lost: str
) -> None:
    put("1.png", scene(1), caption)
    count = words if tokens else len
    (cut,) = found(examine(folder, AT_512, count_tokens=count, longest=10 if tokens else 8), "cut-off")
    assert cut.sentence.endswith(f'lost is "{lost}".') and f"has {tokens or len(caption)} tokens" in cut.sentence
    found(examine(folder, AT_512, count_tokens=count, longest=tokens or len(caption)))
    found(examine(folder, AT_512))


def test_findings_come_kind_by_kind(folder: Path, put: Put) -> None:
    put("1.png", scene(1, 128), "")
    put("2.png", scene(2).filter(ImageFilter.GaussianBlur(4)), None)
    put("3.png", scene(3, 128))
    kinds = [finding.kind for finding in examine(folder, AT_512).findings]
    assert kinds == sorted(kinds, key=list(KINDS).index) and kinds.count("too-small") == 2


def test_a_folder_without_pictures_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no pictures"):
        examine(tmp_path, AT_512)
    with pytest.raises(BadInput, match="no such folder"):
        examine(tmp_path / "none", AT_512)

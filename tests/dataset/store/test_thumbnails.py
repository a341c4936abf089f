"""Thumbnails: small, right, kept, and never in the way."""

from __future__ import annotations

import io
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.dataset.store import thumbnails
from lora_trainer.dataset.store.thumbnails import SIDE, Thumbnails


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "zdm" / ".lora_trainer").mkdir(parents=True)
    (tmp_path / "zdm" / "10_zdm").mkdir()
    return tmp_path / "zdm"


def draw(folder: Path, name: str, colour: str = "red", size: tuple[int, int] = (600, 300)) -> Path:
    path = folder / "10_zdm" / name
    Image.new("RGB", size, colour).save(path)
    return path


def seen(data: bytes | None) -> tuple[tuple[int, int], tuple[int, ...]]:
    """Size and colour."""
    assert data is not None
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        colour = image.convert("RGB").getpixel((3, 3))
    assert isinstance(colour, tuple)
    return image.size, tuple(round(level / 64) * 64 for level in colour)


RED, BLUE = (256, 0, 0), (0, 0, 256)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are read."""
    names: list[str] = []

    def read(path: Path, side: int) -> Image.Image:
        names.append(path.name)
        return real(path, side)

    real = thumbnails.read_small
    monkeypatch.setattr(thumbnails, "read_small", read)
    return names


@pytest.mark.parametrize(
    ("size", "small"),
    [((600, 300), (256, 128)), ((300, 3000), (26, 256)), ((100, 50), (100, 50)), ((4000, 2000), (256, 128))],
)
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_thumbnail_fits_and_is_not_enlarged(
    folder: Path, ending: str, size: tuple[int, int], small: tuple[int, int]
) -> None:
    path = draw(folder, f"a{ending}", size=size)
    with Thumbnails(folder) as cache:
        assert seen(cache.get(path)) == (small, RED)
    assert max(small) <= SIDE


def test_it_is_made_once(folder: Path, made: list[str]) -> None:
    paths = [draw(folder, f"{number}.png") for number in range(5)]
    with Thumbnails(folder) as cache:
        first = cache.page(paths[:3])
    with Thumbnails(folder) as cache:
        assert cache.page(paths)[:3] == first
        assert cache.page([*reversed(paths), paths[0]])[-4:-1] == first[::-1]
    assert sorted(made) == [path.name for path in paths]


def test_a_changed_picture_has_another(folder: Path, made: list[str]) -> None:
    path = draw(folder, "a.png")
    with Thumbnails(folder) as cache:
        assert seen(cache.get(path))[1] == RED
        draw(folder, "a.png", "blue")
        os.utime(path, ns=(1, 1))
        assert seen(cache.get(path))[1] == BLUE
        assert seen(cache.get(path))[1] == BLUE
    assert made == ["a.png", "a.png"]
    with sqlite3.connect(folder / ".lora_trainer" / "thumbnails.sqlite") as db:
        assert db.execute("SELECT count(*) FROM thumbnails").fetchone() == (1,)
    db.close()


def test_what_cannot_be_read_has_none(folder: Path, tmp_path: Path) -> None:
    broken = folder / "10_zdm" / "broken.png"
    broken.write_bytes(b"text")
    with Thumbnails(folder) as cache:
        page = cache.page([broken, folder / "missing.png", draw(folder, "a.png")])
        assert page[:2] == [None, None]
        assert seen(page[2])[1] == RED
        for path in (broken, folder / "missing.png"):
            with pytest.raises(BadInput):
                cache.get(path)


def test_a_picture_outside_the_set_has_one_too(folder: Path, tmp_path: Path, made: list[str]) -> None:
    Image.new("RGB", (30, 30), "blue").save(tmp_path / "a.png")
    with Thumbnails(folder) as cache:
        assert seen(cache.get(tmp_path / "a.png"))[1] == seen(cache.get(tmp_path / "a.png"))[1] == BLUE
    assert made == ["a.png"]


def test_a_moved_set_keeps_them(folder: Path, made: list[str]) -> None:
    draw(folder, "a.png")
    with Thumbnails(folder) as cache:
        cache.get(folder / "10_zdm" / "a.png")
    moved = folder.rename(folder.with_name("moved"))
    with Thumbnails(moved) as cache:
        cache.get(moved / "10_zdm" / "a.png")
    assert made == ["a.png"]


@pytest.mark.parametrize("damage", ["text", "middle"])
def test_a_damaged_cache_is_thrown_away(folder: Path, made: list[str], damage: str) -> None:
    paths = [draw(folder, f"{number}.png") for number in range(30)]
    file = folder / ".lora_trainer" / "thumbnails.sqlite"
    with Thumbnails(folder) as cache:
        cache.page(paths)
    data = file.read_bytes()
    if damage == "text":
        file.write_bytes(b"no database at all, but long enough to be one" * 100)
    else:
        file.write_bytes(data[:100] + bytes(len(data) - 100))
    with Thumbnails(folder) as cache:
        assert {seen(thumbnail) for thumbnail in cache.page(paths)} == {((256, 128), RED)}
        assert None not in cache.page(paths)
    assert len(made) == 60


@pytest.mark.parametrize("hindrance", ["no folder", "locked"])
def test_where_none_can_be_kept_they_are_made_anew(folder: Path, made: list[str], hindrance: str) -> None:
    path = draw(folder, "a.png")
    other = sqlite3.connect(folder / ".lora_trainer" / "thumbnails.sqlite", isolation_level=None)
    if hindrance == "locked":
        other.execute("BEGIN EXCLUSIVE")
    else:
        other.close()
        (folder / ".lora_trainer" / "thumbnails.sqlite").unlink(missing_ok=True)
        (folder / ".lora_trainer").rmdir()
    with Thumbnails(folder) as cache:
        assert seen(cache.get(path))[1] == seen(cache.get(path))[1] == RED
    other.close()
    assert made == ["a.png", "a.png"]


def test_threads_may_share_it(folder: Path) -> None:
    paths = [draw(folder, f"{number}.png", "red" if number % 2 else "blue", (40, 40)) for number in range(40)]
    with Thumbnails(folder) as cache, ThreadPoolExecutor(8) as pool:
        for _ in range(2):
            colours = [seen(data)[1] for data in pool.map(cache.get, paths)]
            assert colours == [RED if number % 2 else BLUE for number in range(40)]


def test_a_profile_and_alpha_do_not_hinder(folder: Path) -> None:
    extra: dict[str, Any] = {"icc_profile": b"no profile"}
    Image.new("RGBA", (300, 300), (255, 0, 0, 0)).save(folder / "10_zdm" / "a.png", **extra)
    with Thumbnails(folder) as cache:
        assert seen(cache.get(folder / "10_zdm" / "a.png"))[1] == (256, 256, 256)

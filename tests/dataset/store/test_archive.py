"""Zips: read where they are harmless, refused where they are not."""

from __future__ import annotations

import os
import random
import re
import stat
import struct
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from lora_trainer.config import BadInput
from lora_trainer.dataset.store import archive
from lora_trainer.dataset.store.archive import zip_members

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


def packed(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for name, data in files.items():
            target.writestr(name, data)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with ExitStack() as stack:
        return {str(member.path): b"".join(member.blocks()) for member in zip_members(path, stack)}


def refusal(path: Path) -> str:
    with ExitStack() as stack, pytest.raises(BadInput) as caught:
        zip_members(path, stack)
    return str(caught.value)


def test_files_come_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    names = ["b/10.png", "b/2.png", "a.png", "__MACOSX/._a.png", ".DS_Store", "b/.thumbs/x.png", "folder/"]
    path = packed(tmp_path / "a.zip", {name: name.encode() for name in names})
    assert list(contents(path).items()) == [(name, name.encode()) for name in ("a.png", "b/2.png", "b/10.png")]


def test_messages_name_the_zip_and_the_file(tmp_path: Path) -> None:
    with ExitStack() as stack:
        [member] = zip_members(packed(tmp_path / "cats.zip", {"b/\u202ecat.png": b"x"}), stack)
        assert member.shown == "cats.zip/b/cat.png"


@pytest.mark.parametrize(
    "name", ["../a.png", "b/../../a.png", "/etc/a.png", "C:/a.png", "c:a.png", "..\\a.png", "\\\\host\\share\\a.png"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    assert "lead out of its folder" in refusal(packed(tmp_path / "a.zip", {"good.png": b"1", name: b"2"}))


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr(link, "/etc/passwd")
    assert "lead out of its folder (link.png)" in refusal(tmp_path / "a.zip")


def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{number}.bmp": bytes(300_000) for number in range(4)})
    assert sum(map(len, contents(path).values())) == 1_200_000  # a real zip of flat pictures passes
    monkeypatch.setattr(archive, "MOST_BYTES", 1_199_999)
    assert path.stat().st_size * archive.MOST_TIMES < 1_200_000
    assert "would unpack to 0.0 GiB" in refusal(path)
    monkeypatch.setattr(archive, "MOST_TIMES", 1_200_000)
    assert len(contents(path)) == 4


def test_a_bomb_of_terabytes_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": bytes(1000), "b.png": bytes(1000)})
    lie(path, "b.png", 0xFFFFFFF0)
    assert "would unpack to 4.0 GiB, more than 1.0" in refusal(path)


def test_a_file_larger_than_it_says_gives_no_more_than_it_says(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": bytes(1_000_000), "b.png": b"good"})
    lie(path, "a.png", 1000)
    with ExitStack() as stack:
        bomb, good = zip_members(path, stack)
        blocks = bomb.blocks()
        received = 0
        with pytest.raises(BadInput, match="a.zip/a.png: cannot be read"):
            for block in blocks:
                received += len(block)
        assert received <= 1000
        assert b"".join(good.blocks()) == b"good"


def lie(path: Path, name: str, size: int) -> None:
    """Changes the unpacked size that both of a file's headers declare."""
    data = bytearray(path.read_bytes())
    for mark, offset, length in ((LOCAL, 22, 30), (CENTRAL, 24, 46)):
        [header] = (
            found.start() - length
            for found in re.finditer(re.escape(name.encode()), data)
            if data[found.start() - length :].startswith(mark)
        )
        struct.pack_into("<I", data, header + offset, size)
    path.write_bytes(data)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(11)})
    monkeypatch.setattr(archive, "MOST_ENTRIES", 10)
    assert "holds 11 files, more than 10" in refusal(path)


def test_a_listing_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.zip", {f"{number}.png": b"" for number in range(1000)})
    monkeypatch.setattr(archive, "_MOST_LISTING", 1 << 15)
    assert "its listing is too long" in refusal(path)


def test_a_zip_with_a_password_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": b"secret"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((LOCAL, 6), (CENTRAL, 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    assert "has a password" in refusal(path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "listing"])
def test_a_damaged_zip_is_refused(tmp_path: Path, damage: str) -> None:
    path = packed(tmp_path / "a.zip", {f"{number}.png": os.urandom(500) for number in range(9)})
    data = path.read_bytes()
    broken = {
        "cut": data[:-40],
        "empty": b"",
        "text": b"no zip at all",
        "listing": data.replace(CENTRAL, b"PK\x09\x09"),
    }
    path.write_bytes(broken[damage])
    assert "is no zip that can be read" in refusal(path)


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": b"a" * 5000, "b.png": b"b" * 5000}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"aaaaaa", b"aaaxaa", 1))
    with ExitStack() as stack:
        damaged, good = zip_members(path, stack)
        with pytest.raises(BadInput, match=r"a\.zip/a\.png: cannot be read"):
            list(damaged.blocks())
        assert b"".join(good.blocks()) == b"b" * 5000


@pytest.mark.parametrize("seed", range(60))
def test_no_damage_gives_anything_but_a_sentence(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(packed(tmp_path / "a.zip", {f"{n}.png": rng.randbytes(300) for n in range(5)}).read_bytes())
    for _ in range(4):
        data[rng.randrange(len(data))] = rng.randrange(256)
    (tmp_path / "a.zip").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
    with ExitStack() as stack:
        try:
            members = zip_members(tmp_path / "a.zip", stack)
        except BadInput:
            return
        for member in members:
            try:
                assert len(b"".join(member.blocks())) <= archive.MOST_BYTES
            except BadInput as error:
                assert "a.zip/" in str(error)


def test_other_methods_of_packing_are_not_read(tmp_path: Path) -> None:
    """Their decoders unpack a whole block at once: 45 bytes of bzip2 can be a megabyte."""
    with ExitStack() as stack:
        [member] = zip_members(packed(tmp_path / "a.zip", {"a.png": b"x" * 99}, zipfile.ZIP_BZIP2), stack)
        with pytest.raises(BadInput, match="packed by a method \\(12\\) not read here"):
            list(member.blocks())


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("cp932", "ずんだもん/立ち絵 ソ表.png"),  # the second byte of two of them is a backslash
        ("cp932", "10_東北ずん子/正面.png"),
        ("gb18030", "图片/绿色头发 女孩.png"),
        ("gb18030", "繁體中文圖片/臺灣.png"),
        ("utf-8", "ずんだ/é🐈.png"),
        ("cp437", "photos/café.png"),
        ("cp437", "photos/été à Noël.png"),
    ],
)
def test_names_of_other_code_pages(tmp_path: Path, page: str, name: str) -> None:
    """As Windows and macOS pack them: without saying how their names are to be read."""
    files = {name: b"picture", name.replace(".png", ".txt"): b"caption"}
    real = [name.encode(page) for name in files]
    stand_ins = [letter * len(real[0]) for letter in "XY"]  # of the lengths that the headers state
    data = packed(tmp_path / "a.zip", dict(zip(stand_ins, files.values()))).read_bytes()
    for stand_in, name_there in zip(stand_ins, real):
        data = data.replace(stand_in.encode(), name_there)
    (tmp_path / "a.zip").write_bytes(data)
    assert contents(tmp_path / "a.zip") == files


def test_backslashes_are_folders(tmp_path: Path) -> None:
    data = packed(tmp_path / "a.zip", {"10_sks/a.png": b"1"}).read_bytes().replace(b"10_sks/a", b"10_sks\\a")
    (tmp_path / "a.zip").write_bytes(data)
    assert contents(tmp_path / "a.zip") == {"10_sks/a.png": b"1"}


def test_nothing_is_written(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.png": b"1", "b/c.png": b"2"})
    contents(path)
    assert list(tmp_path.iterdir()) == [path]

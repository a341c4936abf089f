"""Pictures brought into a set, from every kind of source and in every kind of trouble."""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.config.problems import shown
from lora_trainer.dataset.folders import find_pictures
from lora_trainer.dataset.store.importing import Imported, import_pictures
from lora_trainer.dataset.store.names import stem_key

Draw = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets" / "zdm"


def brought(folder: Path, *sources: Path, **options: Any) -> Imported:
    return import_pictures(folder, sources, **{"folder_name": "10_zdm", **options})


def files(folder: Path) -> dict[str, bytes]:
    """The set's files and their bytes, but for what is its own."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".lora_trainer" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def own(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".lora_trainer").iterdir() if path.name != "import.lock"]


def names(folder: Path) -> set[str]:
    return set(files(folder))


def jpeg(seed: int = 0, **options: Any) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_a_folder_comes_with_its_captions(draw: Draw, folder: Path) -> None:
    first = draw("photos/a.jpg", caption="zdm, sitting\nsecond line").read_bytes()
    draw("photos/deep/er/b.png", caption="zdm")
    draw("photos/deep/c.webp")
    result = brought(folder, draw("photos/x.bmp").parent)
    assert result == Imported(4, 0, (), ())
    assert names(folder) == {
        *("10_zdm/a.jpg", "10_zdm/a.txt", "10_zdm/b.png", "10_zdm/b.txt", "10_zdm/c.webp", "10_zdm/x.bmp"),
        *("originals/a.jpg", "originals/b.png", "originals/c.webp", "originals/x.bmp"),
    }
    assert files(folder)["originals/a.jpg"] == files(folder)["10_zdm/a.jpg"] == first
    assert files(folder)["10_zdm/a.txt"] == b"zdm, sitting\nsecond line"
    assert own(folder) == []


def test_what_is_imported_can_be_trained_on(draw: Draw, folder: Path, configure: Callable[..., Config]) -> None:
    picture = draw("photos/a.gif", caption="zdm, sitting")
    Image.new("RGBA", (70, 70), (1, 2, 3, 99)).save(picture.with_name("b.png"))
    brought(folder, picture.parent)
    found = find_pictures(configure(Subset(str(folder))))
    assert [(entry.path.name, entry.caption) for entry in found.pictures] == [
        ("a.png", "zdm, sitting"),
        ("b.png", "zdm"),
    ]
    assert (found.left_out, found.pictures[0].subset.repeats) == ((), 10)


def test_a_picture_that_is_its_own_original_takes_its_space_once(draw: Draw, folder: Path) -> None:
    brought(folder, draw("a.jpg"))
    assert (folder / "10_zdm/a.jpg").samefile(folder / "originals/a.jpg")
    assert not (folder / "10_zdm/a.jpg").samefile(folder.parent.parent / "a.jpg")


def test_a_disk_without_second_names_has_copies(draw: Draw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    brought(folder, draw("a.jpg"))
    assert files(folder)["10_zdm/a.jpg"] == files(folder)["originals/a.jpg"]


def test_sd_scripts_folders_keep_repeats_and_captions(draw: Draw, tmp_path: Path, folder: Path) -> None:
    for name in ("img/10_sks dog/1.jpg", "img/3_dog/deep/1.jpg", "reg/1_dog/r.jpg", "model/sample/preview.png"):
        draw(f"project/{name}", caption=name)
    result = brought(folder, tmp_path / "project")
    assert result.added == 2
    kept = {f"{name}.{ending}" for name in ("3_dog/1", "10_sks dog/1_2") for ending in ("jpg", "txt")}
    assert names(folder) == kept | {"originals/1.jpg", "originals/1_2.jpg"}
    folders, others, renamed = result.notices
    assert folders == "Folders that say their repeats are kept: 3_dog, 10_sks dog."
    assert "project/reg/1_dog/r.jpg" in others and "project/model/sample/preview.png" in others
    assert "project/img/10_sks dog/1.jpg to 1_2" in renamed


def test_a_folder_of_repeats_named_itself_keeps_them(draw: Draw, folder: Path) -> None:
    brought(folder, draw("20_sks/a.jpg").parent)
    assert names(folder) == {"20_sks/a.jpg", "originals/a.jpg"}


def test_pictures_for_regularisation_are_not_learned(draw: Draw, folder: Path) -> None:
    picture = draw("project/reg/1_dog/r.jpg")
    with pytest.raises(
        BadInput, match=r"no picture.*none for regularisation, are imported; not project/reg/1_dog/r\.jpg"
    ):
        brought(folder, picture.parent.parent.parent)
    assert brought(folder, picture).added == 1  # named itself


def test_a_year_is_no_count_of_repeats(draw: Draw, tmp_path: Path, folder: Path) -> None:
    draw("trips/2024_Rome/a.jpg")
    brought(folder, tmp_path / "trips")
    assert names(folder) == {"10_zdm/a.jpg", "originals/a.jpg"}


def test_a_zip_is_read_like_a_folder(draw: Draw, tmp_path: Path, folder: Path) -> None:
    draw("photos/10_sks/a.jpg", caption="one")
    Image.new("RGBA", (40, 40)).save(draw("photos/10_sks/b.gif").with_suffix(".png"))
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    from_zip = brought(folder, tmp_path / "photos.zip")
    from_folder = brought(folder.with_name("other"), tmp_path / "photos")
    assert files(folder) == files(folder.with_name("other"))
    assert from_zip.added == from_folder.added == 3


def test_files_of_different_folders_find_their_captions(draw: Draw, tmp_path: Path, folder: Path) -> None:
    """A browser's uploads lie each in a folder of its own; a picture named alone brings what lies beside it."""
    uploads = [draw("tmp/1/a.jpg"), tmp_path / "tmp/2/a.txt", draw("tmp/3/b.jpg", caption="beside")]
    uploads[1].parent.mkdir()
    uploads[1].write_text("uploaded", encoding="utf-8")
    brought(folder, *uploads)
    assert files(folder)["10_zdm/a.txt"] == b"uploaded"
    assert files(folder)["10_zdm/b.txt"] == b"beside"


@pytest.mark.parametrize("caption", ["a.TXT", "A.txt", "a.caption"])
def test_captions_are_found_in_capitals_too(draw: Draw, tmp_path: Path, folder: Path, caption: str) -> None:
    draw("photos/a.jpg").with_name(caption).write_text("zdm", encoding="utf-8")
    brought(folder, tmp_path / "photos")
    assert files(folder)["10_zdm/a.txt"] == b"zdm"


def test_two_captions_of_one_picture(draw: Draw, tmp_path: Path, folder: Path) -> None:
    draw("photos/a.jpg", caption="from txt").with_suffix(".caption").write_text("from caption", encoding="utf-8")
    result = brought(folder, tmp_path / "photos", caption_extension=".caption")
    assert files(folder)["10_zdm/a.caption"] == b"from caption"
    assert files(folder)["originals/a.txt"] == b"from txt"
    assert "photos/a.txt" in result.notices[0]
    assert len(files(folder)) == 4


def test_the_second_caption_serves_where_the_first_cannot_be_read(draw: Draw, folder: Path) -> None:
    picture = draw("a.jpg", caption="readable")
    picture.with_suffix(".caption").write_bytes(b"\xff")
    brought(folder, picture, caption_extension=".caption")
    assert files(folder)["10_zdm/a.caption"] == b"readable"
    assert files(folder)["originals/a.caption"] == b"\xff"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_captions_become_utf8(draw: Draw, folder: Path, encoding: str) -> None:
    picture = draw("a.jpg")
    picture.with_suffix(".txt").write_bytes("緑の髪\r\n🐈\n".encode(encoding))
    brought(folder, picture)
    assert files(folder)["10_zdm/a.txt"] == "緑の髪\r\n🐈\n".encode()


@pytest.mark.parametrize("caption", ["緑の髪".encode("cp932"), b"zdm, " * 200_000, b"zdm\0"])
def test_a_caption_that_cannot_be_read_stops_nothing(draw: Draw, folder: Path, caption: bytes) -> None:
    picture = draw("photos/a.jpg")
    picture.with_suffix(".txt").write_bytes(caption)
    result = brought(folder, picture)
    assert (result.added, result.left_out) == (1, ())
    assert names(folder) == {"10_zdm/a.jpg", "originals/a.jpg", "originals/a.txt"}
    assert files(folder)["originals/a.txt"] == caption
    assert "a.txt" in result.notices[0]


def test_captions_and_files_that_belong_to_no_picture_are_named(draw: Draw, tmp_path: Path, folder: Path) -> None:
    draw("photos/a.jpg").with_name("b.txt").write_text("alone", encoding="utf-8")
    (tmp_path / "photos" / "notes.pdf").write_bytes(b"%PDF")
    alone, others = brought(folder, tmp_path / "photos").notices
    assert "photos/b.txt" in alone and "photos/notes.pdf" in others


def test_what_cannot_be_used_is_named_and_the_rest_comes_in(draw: Draw, tmp_path: Path, folder: Path) -> None:
    good = draw("photos/good.jpg")
    cut = draw("photos/cut.png")
    cut.write_bytes(cut.read_bytes()[:2000])
    (good.parent / "text.png").write_text("I am a text.", encoding="utf-8")
    (good.parent / "empty.gif").touch()
    result = brought(folder, good.parent)
    assert result.added == 1
    assert [problem.setting for problem in result.left_out] == ["photos/cut.png", "photos/empty.gif", "photos/text.png"]
    assert "photos/text.png: is no picture that can be read." in str(result.left_out[2])
    assert names(folder) == {"10_zdm/good.jpg", "originals/good.jpg"}


def test_a_mislabelled_picture_gets_its_right_ending(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "a.png").write_bytes(jpeg())
    result = brought(folder, tmp_path / "a.png")
    assert names(folder) == {"10_zdm/a.jpg", "originals/a.jpg"}
    assert result.notices == ("Pictures whose ending was wrong have the right one: a.png to .jpg.",)


@pytest.mark.parametrize("ending", [".JPG", ".jpeg", ".jfif", ".jpe"])
def test_a_formats_other_endings_are_not_wrong(tmp_path: Path, folder: Path, ending: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(jpeg())
    assert brought(folder, tmp_path / f"a{ending}") == Imported(1, 0, (), ())
    assert names(folder) == {"10_zdm/a.jpg", "originals/a.jpg"}


def test_names_that_differ_by_case_stay_with_their_captions(tmp_path: Path, folder: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        for number, name in enumerate(("cat", "Cat", "CAT")):
            target.writestr(f"{name}.jpg", jpeg(number))
            target.writestr(f"{name}.txt", name)
    assert brought(folder, tmp_path / "a.zip").added == 3
    inside = files(folder)
    stems = [name.removesuffix(".jpg") for name in inside if name.startswith("10_zdm") and name.endswith(".jpg")]
    assert len({stem.casefold() for stem in stems}) == 3
    pairs = {inside[f"{stem}.txt"]: inside[f"{stem}.jpg"] for stem in stems}
    assert pairs == {b"cat": jpeg(0), b"Cat": jpeg(1), b"CAT": jpeg(2)}


@pytest.mark.parametrize(
    ("given", "stem"),
    [
        ("ずんだもん🐈‍⬛", "ずんだもん🐈‍⬛"),
        ("שלום \u202eabc", "שלום abc"),
        ("猫" * 83, "猫" * 40),
        ("aux", "_aux"),
        ('a"b?', "a_b_"),
        ("e\u0301", "é"),
        ("v1.2", "v1.2"),
        ("a.png", "a.png"),
    ],
)
def test_odd_names(tmp_path: Path, folder: Path, given: str, stem: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr(f"{given}.jpg", jpeg())
        target.writestr(f"{given}.txt", "zdm")
    brought(folder, tmp_path / "a.zip")
    assert names(folder) == {f"10_zdm/{stem}.jpg", f"10_zdm/{stem}.txt", f"originals/{stem}.jpg"}


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0:")
NAMES = st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: name[0] != "." and name != "__MACOSX")


@given(st.lists(NAMES | st.sampled_from(["a", "A", "a_2", "A_2", "\u00e9", "e\u0301", "con"]), unique=True, min_size=1))
@settings(max_examples=40, deadline=None)
def test_any_names_become_pictures_with_their_own_captions(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        with zipfile.ZipFile(Path(temporary) / "a.zip", "w") as target:
            for number, name in enumerate(names):
                target.writestr(f"{name}.txt", str(number))
                target.writestr(f"{name}.jpg", jpeg(number))
        folder = Path(temporary) / "set"
        assert brought(folder, Path(temporary) / "a.zip").added == len(names)
        pictures = list((folder / "10_zdm").glob("*.jpg"))
        assert len({stem_key(path.stem) for path in pictures}) == len(names)
        for path in pictures:
            caption = path.with_name(f"{path.stem}.txt").read_text(encoding="utf-8")
            assert path.read_bytes() == jpeg(int(caption))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_255_bytes_and_of_no_encoding(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    (source / ("x" * 251 + ".jpg")).write_bytes(jpeg(1))
    (source / os.fsdecode(b"\x82\xb1.jpg")).write_bytes(jpeg(2))
    result = brought(folder, source)
    assert result.added == 2
    assert {"10_zdm/" + "x" * 120 + ".jpg", "10_zdm/picture.jpg"} <= names(folder)
    "".join(result.notices).encode()  # can be printed
    assert brought(folder, *source.iterdir()) == Imported(0, 2, (), ())


def test_links_are_not_followed_but_named(draw: Draw, tmp_path: Path, folder: Path) -> None:
    source = draw("photos/a.jpg").parent
    try:
        (source / "b.jpg").symlink_to(draw("elsewhere/b.jpg"))
        (source / "loop").symlink_to(source)
    except OSError:
        pytest.skip("this system lets nobody make links")
    result = brought(folder, source)
    assert (result.added, result.notices) == (1, ("Links are not followed: photos/b.jpg, photos/loop.",))


def test_what_the_set_has_is_not_added_again(draw: Draw, tmp_path: Path, folder: Path) -> None:
    draw("photos/a.jpg", caption="one")
    shutil.copy(draw("photos/b.gif"), tmp_path / "photos/copy of b.gif")
    assert brought(folder, tmp_path / "photos") == Imported(2, 1, (), ())
    before = files(folder)
    (folder / "10_zdm/a.txt").write_text("edited", encoding="utf-8")
    draw("photos/new.png")
    assert brought(folder, tmp_path / "photos") == Imported(1, 3, (), ())
    assert files(folder) == before | {
        "10_zdm/a.txt": b"edited",
        "10_zdm/new.png": files(tmp_path / "photos")["new.png"],
        "originals/new.png": files(tmp_path / "photos")["new.png"],
    }
    assert own(folder) == []


def test_pictures_of_a_set_made_elsewhere_are_known_too(draw: Draw, folder: Path) -> None:
    source = draw("a.jpg")
    (folder / "10_zdm").mkdir(parents=True)
    shutil.copy(source, folder / "10_zdm" / "b.jpg")
    assert brought(folder, source) == Imported(0, 1, (), ())


def test_names_of_the_set_are_not_taken_again(draw: Draw, folder: Path) -> None:
    for name in ("3_other/a.jpg", "left_out/10_zdm/b.jpg", "originals/c.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(len(name)))
    (folder / "10_ZDM").mkdir()
    (folder / "10_ZDM" / "d.txt").write_text("a caption without its picture", encoding="utf-8")
    before = files(folder)
    brought(folder, *(draw(f"photos/{stem}.jpg") for stem in ("A", "b", "c", "d")))
    after = files(folder)
    assert after.items() >= before.items()
    assert after.keys() - before.keys() == {
        f"{place}/{stem}_2.jpg" for place in ("10_ZDM", "originals") for stem in ("A", "b", "c", "d")
    }


def test_the_set_within_a_source_is_passed_over(draw: Draw, tmp_path: Path) -> None:
    draw("photos/a.jpg")
    folder = tmp_path / "photos" / "zdm"
    Image.new("RGBA", (40, 40)).save(tmp_path / "photos" / "b.png")
    assert brought(folder, tmp_path / "photos").added == 2
    assert brought(folder, tmp_path / "photos") == Imported(0, 2, (), ())
    with pytest.raises(BadInput, match="lies in the set"):
        brought(folder, folder / "originals")


def test_all_that_is_wrong_with_the_sources_is_said_at_once(draw: Draw, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(BadInput) as caught:
        brought(folder, draw("a.jpg"), tmp_path / "missing", tmp_path / "notes.pdf", tmp_path / "bad.zip")
    missing, no_picture, bad = map(str, caught.value.problems)
    assert "missing" in missing and "there is no such file or folder" in missing
    assert "notes.pdf" in no_picture and "is no picture" in no_picture
    assert "bad.zip" in bad and "is no zip" in bad
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../outside.jpg", "/outside.jpg", "C:\\outside.jpg"])
def test_a_zip_that_leads_out_writes_nothing(draw: Draw, tmp_path: Path, folder: Path, name: str) -> None:
    brought(folder, draw("first.jpg"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("good.jpg", jpeg())
        target.writestr(name, jpeg(1))
    before = files(tmp_path)
    with pytest.raises(BadInput, match=r"a\.zip.*lead out of its folder"):
        brought(folder, tmp_path / "a.zip")
    assert files(tmp_path) == before and own(folder) == []
    assert not list(tmp_path.parent.glob("outside*"))


def test_nothing_to_import_is_said_with_the_reasons(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    with pytest.raises(BadInput, match="no picture that can be imported"):
        brought(folder, source)
    (source / "a.png").write_text("text", encoding="utf-8")
    with pytest.raises(BadInput, match=r"no picture that can be imported.*\nphotos/a\.png: is no picture"):
        brought(folder, source)
    assert not folder.exists()
    (folder / "mine").mkdir(parents=True)
    with pytest.raises(BadInput, match="no picture that can be imported"):
        brought(folder, source)
    assert files(folder) == {} and own(folder) == []


def test_progress_is_told(draw: Draw, folder: Path) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    sources = [draw(f"{number}.jpg") for number in range(3)]
    brought(folder, *sources, report=lambda kind, /, **facts: told.append((kind, facts)))
    assert told == [("phase", {"name": "importing", "done": done, "of": 3}) for done in (1, 2, 3)]


@dataclass
class Stop:
    wanted: bool = False


@pytest.mark.parametrize("at", [1, 3])
def test_a_stop_leaves_the_set_as_it_was(draw: Draw, folder: Path, at: int) -> None:
    brought(folder, draw("first.jpg", caption="first"))
    before, stop = files(folder), Stop()

    def report(kind: str, done: int, **_: Any) -> None:
        stop.wanted = done == at

    result = brought(folder, *(draw(f"n/{number}.gif") for number in range(4)), report=report, stop=stop)
    assert result == Imported(0, 0, (), ("The import was stopped; nothing was added to the set.",))
    assert files(folder) == before and own(folder) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a listener's own")])
def test_whatever_comes_between_leaves_the_set_as_it_was(draw: Draw, folder: Path, error: BaseException) -> None:
    brought(folder, draw("first.jpg", caption="first"))
    before = files(folder)

    def report(kind: str, done: int, **_: Any) -> None:
        if done == 2:
            raise error

    with pytest.raises(type(error)):
        brought(folder, *(draw(f"n/{number}.gif") for number in range(4)), report=report)
    assert files(folder) == before and own(folder) == []


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class FullDisk(io.FileIO):
    """A file on a disk that takes so many bytes more."""

    left = 0

    def write(self, data: Any) -> int:
        FullDisk.left -= len(data)
        if FullDisk.left < 0:
            full()
        return super().write(data)


@pytest.mark.parametrize("room", [0, 3_000, 40_000, "fsync", "mkdir", "png", "rename"])
def test_a_full_disk_leaves_the_set_as_it_was(
    draw: Draw, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, room: int | str
) -> None:
    brought(folder, draw("first.jpg", caption="first"))
    before = files(folder)
    sources = [draw(f"n/{number}.{ending}", caption="zdm") for number in range(6) for ending in ("png", "gif")]
    real_open = Path.open

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        writes = mode == "wb" and ".part" in str(path)
        return FullDisk(path, mode) if writes else real_open(path, mode, *arguments, **options)

    with monkeypatch.context() as patch:
        if room == "fsync":
            patch.setattr(os, "fsync", full)
        elif room == "mkdir":
            patch.setattr(Path, "mkdir", full)
        elif room == "png":
            patch.setattr(Image.Image, "save", full)
        elif room == "rename":
            patch.setattr(Path, "rename", full)
        else:
            patch.setattr(Path, "open", opened)
            patch.setattr(FullDisk, "left", room)
        with pytest.raises(BadInput) as caught:
            brought(folder, *sources)
    assert str(caught.value) == (
        f"dataset = {shown(str(folder))}: cannot be written (No space left on device); it stays as it was. "
        "Make room on the disk, then import again."
    )
    assert files(folder) == before and own(folder) == []
    assert brought(folder, *sources).added == 12


def test_a_set_that_cannot_be_written_is_named(draw: Draw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    picture = draw("a.jpg")
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(
        BadInput, match=r"cannot be written \(Permission denied\).*Check the folder and the rights to it"
    ):
        brought(folder, picture)


def test_a_file_where_the_set_should_be(draw: Draw, tmp_path: Path) -> None:
    taken = tmp_path / "zdm"
    taken.write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match="cannot be written"):
        brought(taken, draw("a.jpg"))
    assert taken.read_text(encoding="utf-8") == "mine"


def test_a_source_that_cannot_be_written_is_read(draw: Draw, folder: Path) -> None:
    picture = draw("photos/a.jpg")
    picture.chmod(0o444)
    picture.parent.chmod(0o555)
    assert brought(folder, picture.parent).added == 1
    (folder / "10_zdm" / "a.jpg").unlink()
    picture.parent.chmod(0o755)


def test_a_folder_that_cannot_be_opened_is_left_out(draw: Draw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = draw("photos/a.jpg").parent
    closed = draw("photos/closed/b.jpg").parent
    real_iterdir = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_iterdir(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    result = brought(folder, source)
    assert result.added == 1
    assert "cannot be opened (Permission denied)" in str(result.left_out[0])


def test_a_source_that_cannot_be_read_is_left_out(draw: Draw, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = draw("photos/a.jpg").parent
    draw("photos/b.jpg")
    real_open = Path.open

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "a.jpg" and path.parent == source:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    result = brought(folder, source)
    assert result.added == 1
    assert [str(problem).split(". ")[0] for problem in result.left_out] == [
        "photos/a.jpg: cannot be read (Permission denied)"
    ]

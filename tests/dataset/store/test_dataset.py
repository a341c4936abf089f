"""A set of pictures: its list, and what a person does in its folder by hand."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.dataset.captions import LONGEST_CAPTION
from lora_trainer.dataset.store import Dataset, Entry

Draw = Callable[..., Path]


@pytest.fixture
def folder(draw: Draw, tmp_path: Path) -> Path:
    draw("zdm/10_zdm/b10.png", (80, 64), "zdm, green hair\na note\n")
    draw("zdm/10_zdm/b9.jpg", (64, 96), "zdm, smile")
    draw("zdm/2_hat/a.png", (48, 48))
    draw("zdm/originals/b9.png", (200, 300))
    return tmp_path / "zdm"


def by_name(dataset: Dataset) -> dict[str, Entry]:
    return {entry.file: entry for entry in dataset.entries()}


def write(path: Path, text: str) -> None:
    """As another program does, and so that no clock is too coarse to tell."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_folder_is_a_set(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        entries = dataset.entries()
        assert [(entry.folder, entry.file, entry.size, entry.caption, entry.original) for entry in entries] == [
            ("2_hat", "a.png", (48, 48), "", ""),
            ("10_zdm", "b9.jpg", (64, 96), "zdm, smile", "b9.png"),
            ("10_zdm", "b10.png", (80, 64), "zdm, green hair\na note\n", ""),
        ]
        assert [entry.line for entry in entries] == ["", "zdm, smile", "zdm, green hair"]
        assert dataset.picture(entries[1]) == folder / "10_zdm" / "b9.jpg"
        assert dataset.original(entries[1]) == folder / "originals" / "b9.png"
        assert dataset.original(entries[2]) == folder / "10_zdm" / "b10.png"
        assert dataset.caption_file(entries[0]) == folder / "2_hat" / "a.txt"
        assert dataset.notices == dataset.history() == []


def test_opening_changes_none_of_its_files(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with Dataset.open(folder):
        pass
    assert before == {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != ".lora_trainer"
    }


def test_pictures_may_lie_in_the_sets_own_folder(draw: Draw, tmp_path: Path) -> None:
    picture = draw("flat/a.png", caption="old")
    with Dataset.open(tmp_path / "flat") as dataset:
        (entry,) = dataset.entries()
        assert (entry.folder, dataset.picture(entry)) == ("", picture)
        dataset.change_captions("new", {entry.id: "new"})
    assert picture.with_suffix(".txt").read_text(encoding="utf-8") == "new"


def test_a_set_is_created_or_opened(tmp_path: Path) -> None:
    with Dataset.create(tmp_path / "sets" / "青い 🐈") as dataset:
        assert dataset.entries() == []
    with Dataset.create(tmp_path / "sets" / "青い 🐈") as dataset:
        assert dataset.path == tmp_path / "sets" / "青い 🐈"


def test_no_such_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(BadInput, match="there is no such folder"):
        Dataset.open(tmp_path / "none")
    with pytest.raises(BadInput, match="is no folder"):
        Dataset.open(tmp_path / "file")
    with pytest.raises(BadInput, match="cannot be made"):
        Dataset.create(tmp_path / "file" / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_a_sentence(folder: Path) -> None:
    (folder / ".lora_trainer").write_text("in the way", encoding="utf-8")
    with pytest.raises(BadInput, match=r"index .* cannot be read and written.*copy the set to another disk"):
        Dataset.open(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="its rights bind nobody here")
def test_a_folder_without_the_right_to_write_is_a_sentence(folder: Path) -> None:
    folder.chmod(0o555)
    try:
        with pytest.raises(BadInput, match="cannot be read and written"):
            Dataset.open(folder)
    finally:
        folder.chmod(0o755)


def test_the_caption_file_with_the_ending_asked_for_counts(draw: Draw, tmp_path: Path) -> None:
    picture = draw("s/1_a/x.png", caption="txt")
    picture.with_suffix(".CAPTION").write_text("caption", encoding="utf-8")
    other = draw("s/1_a/y.png")
    for ending, text in ((".txt", "txt"), (".caption", "caption")):
        with Dataset.open(tmp_path / "s", ending) as dataset:
            x, y = dataset.entries()
            assert x.caption == text
            assert dataset.caption_file(y) == other.with_suffix(ending)
            dataset.change_captions("new", {x.id: f"new {text}"})
        with Dataset.open(tmp_path / "s", ".txt") as dataset:
            dataset.undo()
    assert {path.name for path in picture.parent.iterdir()} == {"x.png", "y.png", "x.txt", "x.CAPTION"}


def test_pictures_added_by_hand_are_found(folder: Path, draw: Draw) -> None:
    with Dataset.open(folder) as dataset:
        draw("zdm/10_zdm/c.png", caption="mine")
        assert dataset.refresh() == ["Pictures added: 10_zdm/c.png."]
        assert by_name(dataset)["c.png"].caption == "mine"
        assert dataset.refresh() == dataset.history() == []


def test_a_picture_taken_away_may_come_back_with_its_history(folder: Path, tmp_path: Path) -> None:
    with Dataset.open(folder) as dataset:
        entry = by_name(dataset)["b9.jpg"]
        dataset.change_captions("new", {entry.id: "new"})
        dataset.flush()
        for name in ("b9.jpg", "b9.txt"):
            (folder / "10_zdm" / name).rename(tmp_path / name)
        assert dataset.refresh() == ["Pictures gone: 10_zdm/b9.jpg."]
        assert "b9.jpg" not in by_name(dataset)
        assert dataset.change_captions("late", {entry.id: "late"}) == 0
        for name in ("b9.jpg", "b9.txt"):
            (tmp_path / name).rename(folder / "2_hat" / name)
        assert dataset.refresh() == ["Pictures added: 2_hat/b9.jpg."]
        assert by_name(dataset)["b9.jpg"].id == entry.id
        dataset.undo()
        assert by_name(dataset)["b9.jpg"].caption == "zdm, smile"


def test_another_picture_of_a_gone_ones_name_is_another(folder: Path, draw: Draw) -> None:
    with Dataset.open(folder) as dataset:
        gone = by_name(dataset)["b9.jpg"]
        dataset.remove([gone.id])
        draw("zdm/10_zdm/b9.jpg", (32, 32), "other")
        dataset.refresh()
        other = by_name(dataset)["b9.jpg"]
        assert other.id != gone.id and other.caption == "other" and not dataset.history()


def test_a_renamed_folder_keeps_ids_originals_and_history(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        before = by_name(dataset)
        dataset.change_captions("new", {before["b9.jpg"].id: "new"})
        (folder / "10_zdm").rename(folder / "20_zdm")
        assert dataset.flush() == ["Pictures renamed or moved: 20_zdm/b9.jpg, 20_zdm/b10.png."]
        after = by_name(dataset)
        assert {entry.id for entry in after.values()} == {entry.id for entry in before.values()}
        assert (after["b9.jpg"].folder, after["b9.jpg"].original) == ("20_zdm", "b9.png")
        dataset.undo()
    assert (folder / "20_zdm" / "b9.txt").read_text(encoding="utf-8") == "zdm, smile"
    assert not (folder / "10_zdm").exists()


def test_a_renamed_picture_keeps_its_id_original_and_history(folder: Path) -> None:
    with Dataset.open(folder) as dataset:
        before = by_name(dataset)["b9.jpg"]
        dataset.change_captions("new", {before.id: "new"})
        dataset.flush()
        for name in ("b9.jpg", "b9.txt"):
            (folder / "10_zdm" / name).rename(folder / "10_zdm" / name.replace("b9", "z"))
        assert dataset.refresh() == ["Pictures renamed or moved: 10_zdm/z.jpg."]
        after = by_name(dataset)["z.jpg"]
        assert (after.id, after.caption, after.original) == (before.id, "new", "b9.png")
        dataset.undo()
    assert (folder / "10_zdm" / "z.txt").read_text(encoding="utf-8") == "zdm, smile"


def test_a_picture_saved_under_another_ending_is_the_same_picture(folder: Path, draw: Draw) -> None:
    with Dataset.open(folder) as dataset:
        before = by_name(dataset)["b10.png"]
        draw("zdm/10_zdm/b10.jpg", (32, 40))
        dataset.picture(before).unlink()
        assert dataset.refresh() == ["Pictures replaced: 10_zdm/b10.jpg."]
        after = by_name(dataset)["b10.jpg"]
        assert (after.id, after.size, after.caption) == (before.id, (32, 40), before.caption)


def test_pictures_of_one_stem_do_not_take_each_others_original(folder: Path, draw: Draw) -> None:
    draw("zdm/5_other/a.png", (32, 32), "another")
    draw("zdm/originals/a.png", (32, 32))
    with Dataset.open(folder) as dataset:
        assert [entry.original for entry in dataset.entries() if entry.file == "a.png"] == ["", ""]


def test_a_picture_that_cannot_be_read_is_listed_and_named_once(folder: Path) -> None:
    (folder / "10_zdm" / "b9.jpg").write_bytes(b"no picture")
    with Dataset.open(folder) as dataset:
        (notice,) = dataset.notices
        assert notice.startswith("10_zdm/b9.jpg: is no picture that can be read.")
        assert by_name(dataset)["b9.jpg"].size == (0, 0)
        assert dataset.refresh() == []


@pytest.mark.parametrize("data", ["黒髪".encode("cp932"), b"a, " * (1 << 20)])
def test_a_caption_that_cannot_be_read_is_named_and_left_alone(folder: Path, data: bytes) -> None:
    file = folder / "10_zdm" / "b9.txt"
    file.write_bytes(data)
    with Dataset.open(folder) as dataset:
        (notice,) = dataset.notices
        assert notice.startswith("10_zdm/b9.txt: is ")
        entry = by_name(dataset)["b9.jpg"]
        assert entry.caption == ""
        dataset.change_captions("tagged", {entry.id: "smile"})
        assert dataset.flush() == [notice]
        assert file.read_bytes() == data and by_name(dataset)["b9.jpg"].caption == "smile"
        file.unlink()
        assert dataset.flush() == []
        assert file.read_text(encoding="utf-8") == "smile"


def test_a_caption_that_becomes_unreadable_is_not_overwritten(folder: Path) -> None:
    file = folder / "10_zdm" / "b9.txt"
    with Dataset.open(folder) as dataset:
        file.write_bytes("黒髪".encode("cp932"))
        said, edited = dataset.flush()
        assert said == "Captions edited outside: 10_zdm/b9.jpg." and edited.startswith("10_zdm/b9.txt: is not text")
        dataset.undo()
        dataset.flush()
        assert file.read_bytes() == "黒髪".encode("cp932")


def unusual_names() -> list[str]:
    # Windows and macOS count UTF-16 units, Linux bytes: 251 and an ending of 4 is the most that all take.
    return ["n" * 251, "é" * 125, "🐈‍⬛ 青", "\u202eمرحبا שלום", 'a\'b "c" %20 #1' if os.name != "nt" else "a'b"]


@pytest.mark.parametrize("stem", unusual_names())
def test_any_name_will_do(folder: Path, stem: str) -> None:
    shutil.copy(folder / "10_zdm" / "b10.png", folder / "10_zdm" / f"{stem}.png")
    with Dataset.open(folder) as dataset:
        dataset.change_captions("new", {by_name(dataset)[f"{stem}.png"].id: "new"})
        dataset.flush()
        assert (folder / "10_zdm" / f"{stem}.txt").read_text(encoding="utf-8") == "new"
        entry = dataset.replace_picture(by_name(dataset)[f"{stem}.png"], red, "red")
        assert dataset.original(entry).name == f"{stem}.png"
        assert dataset.remove([entry.id]) == []
    assert {path.suffix for path in (folder / "left_out" / "10_zdm").iterdir()} == {".png", ".txt"}


def test_names_that_differ_by_case_only_are_two(folder: Path) -> None:
    shutil.copy(folder / "10_zdm" / "b10.png", folder / "10_zdm" / "B10.png")
    if len(list((folder / "10_zdm").glob("[bB]10.png"))) == 1:
        pytest.skip("the disk takes them for one")
    with Dataset.open(folder) as dataset:
        entries = by_name(dataset)
        dataset.change_captions("x", {entries["B10.png"].id: "capital", entries["b10.png"].id: "small"})
        dataset.replace_picture(entries["B10.png"], red, "red")
        dataset.replace_picture(entries["b10.png"], red, "red")
    assert (folder / "10_zdm" / "B10.txt").read_text(encoding="utf-8") == "capital"
    assert (folder / "10_zdm" / "b10.txt").read_text(encoding="utf-8") == "small"
    assert {"B10.png", "b10.png"} <= {path.name for path in (folder / "originals").iterdir()}


@pytest.mark.skipif(sys.platform != "linux", reason="names are text here")
def test_a_name_that_is_no_text_is_named(folder: Path) -> None:
    shutil.copy(folder / "10_zdm" / "b10.png", folder / "10_zdm" / os.fsdecode(b"\xff.png"))
    with Dataset.open(folder) as dataset:
        assert dataset.notices == ["10_zdm/?.png: its name is no text in UTF-8, and it is not used. Rename it."]
        assert len(dataset.entries()) == 3


def test_what_a_killed_process_left_is_cleared_away(folder: Path) -> None:
    (folder / "10_zdm" / ".b9.txt.4711.tmp").write_text("half", encoding="utf-8")
    for name in (".mine", ".a.safetensors.4712.tmp"):
        (folder / "10_zdm" / name).write_text("another's", encoding="utf-8")
    with Dataset.open(folder):
        hidden = [path.name for path in (folder / "10_zdm").iterdir() if path.name[0] == "."]
    assert sorted(hidden) == [".a.safetensors.4712.tmp", ".mine"]


def red(path: Path) -> None:
    Image.new("RGB", (40, 56), "red").save(path)


def test_a_replaced_picture_keeps_its_original_caption_and_id(folder: Path) -> None:
    came = (folder / "10_zdm" / "b9.jpg").read_bytes()
    (folder / "originals" / "b9.png").unlink()
    with Dataset.open(folder) as dataset:
        before = by_name(dataset)["b9.jpg"]
        after = dataset.replace_picture(before, red, "focus 40x56")
        assert (after.id, after.file, after.size, after.cut) == (before.id, "b9.png", (40, 56), "focus 40x56")
        assert (after.original, after.caption) == ("b9.jpg", "zdm, smile")
        assert after == by_name(dataset)["b9.png"]
        again = dataset.replace_picture(after, red, "centre 40x56")
        assert again.original == "b9.jpg" and dataset.refresh() == []
    assert (folder / "originals" / "b9.jpg").read_bytes() == came
    assert sorted(path.name for path in (folder / "10_zdm").iterdir()) == ["b10.png", "b10.txt", "b9.png", "b9.txt"]
    assert [path.name for path in (folder / "originals").iterdir()] == ["b9.jpg"]


def test_an_original_is_a_copy_where_the_disk_has_no_second_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    came = (folder / "10_zdm" / "b10.png").read_bytes()
    with Dataset.open(folder) as dataset:
        dataset.replace_picture(by_name(dataset)["b10.png"], red, "red")
    assert (folder / "originals" / "b10.png").read_bytes() == came


def test_a_picture_drawn_over_by_hand_is_kept_when_it_is_replaced(folder: Path, draw: Draw) -> None:
    with Dataset.open(folder) as dataset:
        cut = dataset.replace_picture(by_name(dataset)["b9.jpg"], red, "red")
        draw("zdm/10_zdm/b9.png", (44, 44))
        drawn = dataset.picture(cut).read_bytes()
        assert dataset.refresh() == ["Pictures replaced: 10_zdm/b9.png."]
        over = by_name(dataset)["b9.png"]
        assert (over.cut, over.original, dataset.original(over)) == ("", "", dataset.picture(over))
        again = dataset.replace_picture(over, red, "red")
        assert dataset.original(again).read_bytes() == drawn
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("originals/**/*.png")} == {
        "originals/b9.png",
        "originals/2/b9.png",
    }
    with Dataset.open(folder) as dataset:
        assert dataset.original(by_name(dataset)["b9.png"]).read_bytes() == drawn


def test_a_picture_is_not_replaced_over_another(folder: Path, draw: Draw) -> None:
    other = draw("zdm/10_zdm/b9.png", (20, 20)).read_bytes()
    sentence = r"10_zdm/b9\.jpg.*would become b9\.png.*Rename one"
    with Dataset.open(folder) as dataset, pytest.raises(BadInput, match=sentence):
        dataset.replace_picture(by_name(dataset)["b9.jpg"], red, "red")
    assert (folder / "10_zdm" / "b9.png").read_bytes() == other


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(28, "No space left on device"), BadInput), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_picture_that_could_not_be_written_leaves_the_old_one(
    folder: Path, error: BaseException, told: type[BaseException]
) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with Dataset.open(folder) as dataset:
        before = by_name(dataset)["b10.png"]
        with pytest.raises(told, match=r"No space left on device|^$"):
            dataset.replace_picture(before, fail, "red")
        assert by_name(dataset)["b10.png"] == before
    assert not list((folder / ".lora_trainer").glob("replacing*"))


def test_a_picture_that_another_program_holds_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with Dataset.open(folder) as dataset:
        before = by_name(dataset)
        monkeypatch.setattr(Path, "replace", refuse)
        with pytest.raises(BadInput, match=r"b10\.png.*cannot be replaced.*Permission denied"):
            dataset.replace_picture(before["b10.png"], red, "red")
        (sentence,) = dataset.remove([before["b9.jpg"].id])
        assert sentence.startswith("10_zdm/b9.jpg: cannot be moved (Permission denied).")
        monkeypatch.undo()
        after = by_name(dataset)
        assert (after["b10.png"].size, after["b10.png"].cut) == ((80, 64), "")
        assert after["b9.jpg"] == before["b9.jpg"] and dataset.history() == []


def test_pictures_left_out_are_kept_apart_never_overwritten(folder: Path, draw: Draw) -> None:
    with Dataset.open(folder) as dataset:
        for number in (1, 2):
            dataset.change_captions("late", {by_name(dataset)["b9.jpg"].id: f"late {number}"})
            assert dataset.remove([by_name(dataset)["b9.jpg"].id]) == []
            draw("zdm/10_zdm/b9.jpg", (32, 32), "another")
            dataset.refresh()
        assert dataset.remove([12345]) == []
    texts = {path.parent.name: path.read_text(encoding="utf-8") for path in (folder / "left_out").rglob("b9.txt")}
    assert texts == {"10_zdm": "late 1", "10_zdm (2)": "late 2"}
    assert len(list((folder / "left_out").rglob("b9.jpg"))) == 2


def test_a_caption_of_two_pictures_stays_with_the_one_that_stays(folder: Path, draw: Draw) -> None:
    draw("zdm/10_zdm/b9.png", (20, 20))
    with Dataset.open(folder) as dataset:
        dataset.remove([by_name(dataset)["b9.jpg"].id])
        assert by_name(dataset)["b9.png"].caption == "zdm, smile"
        dataset.remove([by_name(dataset)["b9.png"].id])
    assert (folder / "left_out" / "10_zdm" / "b9.txt").is_file() and not (folder / "10_zdm" / "b9.txt").exists()


@pytest.mark.parametrize("text", ["a" * (LONGEST_CAPTION + 1), "é" * LONGEST_CAPTION, "a\0b", "\ud83d"])
def test_a_text_that_no_caption_file_could_hold_changes_nothing(folder: Path, text: str) -> None:
    with Dataset.open(folder) as dataset:
        first, second, _ = dataset.entries()
        with pytest.raises(BadInput, match="Nothing was changed"):
            dataset.change_captions("x", {first.id: "fine", second.id: text})
        assert dataset.entries()[0] == first and not dataset.history()

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import Command, contents


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (96, 64), (80 * number, 20, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("green_hair, 1girl, solo\n", encoding="utf-8")
    return folder


def test_it_says_what_it_did(source: Path, tmp_path: Path, command: Command) -> None:
    said = command(
        "prepare", source, "--name", "zdm", "--datasets", tmp_path / "sets", "--crop", "centre", "--size", "64x64",
        "--trigger", "zdm", "--remove", "green hair, solo",
    )  # fmt: skip
    assert said.code == 0
    text = "\n".join(said.out)
    assert f"3 pictures in {tmp_path / 'sets' / 'zdm'}: 3 added" in text
    assert "3 around the centre" in text and "removed green hair, solo): 3" in text
    assert (tmp_path / "sets/zdm/10_zdm/0.txt").read_text(encoding="utf-8") == "zdm, 1girl\n"


def test_json_tells_progress_and_ends_with_the_result(source: Path, tmp_path: Path, command: Command) -> None:
    said = command("prepare", source, "--name", "zdm", "--datasets", tmp_path / "sets", "--json")
    events = [json.loads(line) for line in said.out]
    assert {event["event"] for event in events} == {"phase", "prepared"}
    assert events[-1]["pictures"] == events[-1]["added"] == 3
    again = command("prepare", "--name", "zdm", "--datasets", tmp_path / "sets", "--json")
    assert json.loads(again.out[-1])["pictures"] == 3


def test_all_that_is_wrong_is_told_at_once(source: Path, tmp_path: Path, command: Command) -> None:
    before = contents(tmp_path)
    said = command(
        "prepare", source, "--name", "../zdm", "--size", "500x1", "--crop", "face", "--tagger", "wd", "--threshold", "2"
    )  # fmt: skip
    assert said.code == 2
    named = [line.partition(" = ")[0] for line in said.errors]
    assert sorted(named) == ["crop", "crop_size", "dataset_name", "tag_threshold", "tagger"]
    assert contents(tmp_path) == before


def test_a_missing_source_makes_no_dataset(tmp_path: Path, command: Command) -> None:
    said = command("prepare", tmp_path / "none", "--name", "zdm", "--datasets", tmp_path / "sets")
    assert said.code == 2 and "none" in said.errors[0]
    assert not contents(tmp_path)


def test_a_name_without_a_dataset_needs_pictures(tmp_path: Path, command: Command) -> None:
    said = command("prepare", "--name", "zdm", "--datasets", tmp_path / "sets", "--crop", "centre")
    assert said.code == 2 and "zdm" in said.errors[0]


def test_a_preview_is_drawn_and_nothing_is_cut(source: Path, tmp_path: Path, command: Command) -> None:
    asked = ("prepare", source, "--name", "zdm", "--datasets", tmp_path / "sets", "--crop", "centre", "--size", "64x64")
    said = command(*asked, "--preview", tmp_path / "new" / "cuts.png")
    assert said.code == 0 and "cuts.png" in said.out[-1]
    with Image.open(tmp_path / "new" / "cuts.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 3 * sheet.height / 2  # three pictures in a row
    with Image.open(tmp_path / "sets/zdm/10_zdm/0.png") as picture:
        assert picture.size == (96, 64)
    again = command(*asked, "--preview", tmp_path / "new" / "cuts.png")
    assert again.code == 2 and "--force" in again.errors[0]


def test_a_preview_that_cannot_be_drawn_is_refused_at_once(source: Path, tmp_path: Path, command: Command) -> None:
    before = contents(tmp_path)
    said = command("prepare", source, "--name", "zdm", "--datasets", tmp_path / "sets", "--preview", tmp_path / "a.txt")
    assert said.code == 2 and len(said.errors) == 2 and ".png" in said.errors[0] and "--crop" in said.errors[1]
    assert contents(tmp_path) == before


def test_pictures_that_are_none_leave_no_dataset(tmp_path: Path, command: Command) -> None:
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    said = command("prepare", tmp_path / "text.png", "--name", "zdm", "--datasets", tmp_path / "sets")
    assert said.code == 2 and any("text.png" in line for line in said.errors)
    assert not (tmp_path / "sets" / "zdm").exists()

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.commands.conftest import Command, contents

CAPTIONS = {
    "1": "zdm, green_hair, 1girl, smile",
    "2": "zdm, Green Hair, 1girl, blue eyes, red eyes\n\nfrom my sketchbook\n",
    "10": "zdm,green hair,1girl,hat",
}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    folder = tmp_path / "sets" / "mascot" / "10_zdm"
    folder.mkdir(parents=True)
    for name, caption in CAPTIONS.items():
        Image.new("RGB", (64, 64), (int(name) * 20, 0, 90)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption, encoding="utf-8")
    return tmp_path / "sets"


@pytest.fixture
def tags(command: Command, sets: Path) -> Callable[..., list[str]]:
    def run(*options: object) -> list[str]:
        said = command("tags", "mascot", "--datasets", sets, *options)
        assert said.code == 0, said
        return said.out

    return run


@pytest.fixture
def facts(tags: Callable[..., list[str]]) -> Callable[..., dict[str, Any]]:
    def run(*options: object) -> dict[str, Any]:
        (line,) = tags(*options, "--json")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    return run


def captions(sets: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in (sets / "mascot" / "10_zdm").glob("*.txt")}


def test_counts_are_a_table(tags: Callable[..., list[str]], facts: Callable[..., dict[str, Any]], sets: Path) -> None:
    lines = tags()
    assert lines[0] == "7 tags in 3 captions"
    assert lines[1:4] == ["3  zdm", "3  green_hair", "3  1girl"]
    found = facts()
    assert found["pictures"] == 3 and {"tag": "hat", "count": 1} in found["tags"]
    assert captions(sets) == CAPTIONS


def test_an_edit_says_what_changed_and_how_to_take_it_back(tags: Callable[..., list[str]], sets: Path) -> None:
    said = tags("--remove", "green_hair, HAT")
    assert said == ['3 of 3 captions changed (removed green_hair, HAT). `tags "mascot" --undo` takes it back.']
    after = {
        "1": "zdm, 1girl, smile",
        "2": "zdm, 1girl, blue eyes, red eyes\n\nfrom my sketchbook\n",
        "10": "zdm, 1girl",
    }
    assert captions(sets) == after
    assert tags("--undo") == ["removed green_hair, HAT: taken back in 3 captions."]
    assert captions(sets) == CAPTIONS
    assert tags("--redo") == ["removed green_hair, HAT: done again in 3 captions."]
    assert captions(sets) == after
    assert tags("--redo") == ["There is nothing to be done again."]


@pytest.mark.parametrize(
    ("options", "first"),
    [
        (["--add", "hat, cape"], "zdm, green_hair, 1girl, smile, hat, cape"),
        (["--add", "solo", "--at", "start"], "solo, zdm, green_hair, 1girl, smile"),
        (["--replace", "green hair", "teal hair"], "zdm, teal hair, 1girl, smile"),
        (["--sort"], "zdm, 1girl, green_hair, smile"),
        (["--trigger", "kuro"], "kuro, zdm, green_hair, 1girl, smile"),
        (["--trigger", "1girl", "--sort"], "1girl, green_hair, smile, zdm"),
        (["--remove", "zdm", "--add", "1girl, x"], "green_hair, 1girl, smile, x"),
        (["--add", "hat", "--picture", "10.png"], CAPTIONS["1"]),
        (["--add", "cape", "--picture", "1"], "zdm, green_hair, 1girl, smile, cape"),
        (["--dedupe"], CAPTIONS["1"]),
    ],
)
def test_each_edit(tags: Callable[..., list[str]], sets: Path, options: list[str], first: str) -> None:
    tags(*options)
    assert captions(sets)["1"] == first


def test_only_the_pictures_named_are_edited(facts: Callable[..., dict[str, Any]], sets: Path) -> None:
    path = sets / "mascot" / "10_zdm" / "2.png"
    found = facts("--remove", "green hair", "--picture", path, "10_zdm/10.png")
    assert (found["changed"], found["pictures"]) == (2, 2)
    assert captions(sets)["1"] == CAPTIONS["1"] and "green" not in captions(sets)["10"]


def test_several_edits_at_once_are_one_step(facts: Callable[..., dict[str, Any]], sets: Path) -> None:
    facts("--remove", "hat", "--add", "cape", "--trigger", "kuro")
    (step,) = facts("--history")["history"]
    assert (step["what"], step["count"], step["undone"]) == ("removed hat; added cape at the end; kuro first", 3, False)
    assert facts("--undo")["undone"]["count"] == 3
    assert captions(sets) == CAPTIONS
    assert facts("--undo")["undone"] is None


def test_history_is_a_table(tags: Callable[..., list[str]]) -> None:
    assert tags("--history") == ["No caption was edited yet."]
    tags("--add", "cape", "--picture", "1")
    tags("--add", "hat")
    tags("--undo")
    first, second = tags("--history")
    assert first.endswith("  1  added cape at the end")
    assert second.endswith("  2  added hat at the end   (taken back)")


def test_what_a_person_wrote_meanwhile_is_edited_too(tags: Callable[..., list[str]], sets: Path) -> None:
    tags("--add", "cape")
    (sets / "mascot" / "10_zdm" / "1.txt").write_text("zdm, mine", encoding="utf-8")
    tags("--add", "sword")
    assert captions(sets)["1"] == "zdm, mine, sword"


def test_advice(tags: Callable[..., list[str]], facts: Callable[..., dict[str, Any]], sets: Path) -> None:
    said = "\n".join(tags("--advice"))
    assert 'Fold into "zdm"?' in said and 'tags "mascot" --remove "green_hair"' in said
    assert "10_zdm/2.png  blue eyes and red eyes cannot both be true" in said
    found = facts("--advice")
    assert [row["tag"] for row in found["fold"]] == ["green_hair"] and [row["tag"] for row in found["kept"]] == [
        "1girl"
    ]
    assert found["contradictions"][0]["picture"] == "10_zdm/2.png" and found["trigger"] == "zdm"
    assert ["hat", "10_zdm/10.png"] in found["one_offs"]
    assert [row["tag"] for row in facts("--advice", "--trigger", "green_hair")["fold"]] == ["zdm"]
    assert captions(sets) == CAPTIONS


def test_wide_letters_take_two_columns(tags: Callable[..., list[str]], sets: Path) -> None:
    for name in CAPTIONS:
        (sets / "mascot" / "10_zdm" / f"{name}.txt").write_text("zdm, 緑髪, green dress", encoding="utf-8")
    rows = [line for line in tags("--advice") if "on every picture" in line]
    assert rows[0].startswith("  緑髪         on every") and rows[1].startswith("  green dress  on every")


def test_a_folder_can_be_named_by_its_path(command: Command, sets: Path, tmp_path: Path) -> None:
    said = command("tags", sets / "mascot", "--datasets", tmp_path / "none", "--json")
    assert json.loads(said.out[0])["pictures"] == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--remove", " , "], "Name a tag"),
        (["--replace", "a", ""], "Name a tag"),
        (["--undo", "--remove", "a"], "cannot be done together with edits"),
        (["--undo", "--picture", "1.png"], "cannot be done together with --picture"),
        (["--add", "a", "--picture", "1.png", "77.png", "x"], 'picture = "77.png": is not in the dataset'),
    ],
)
def test_bad_input(command: Command, sets: Path, options: list[str], words: str) -> None:
    said = command("tags", "mascot", "--datasets", sets, *options)
    assert said.code == 2 and words in said.errors[0] and not said.out
    assert captions(sets) == CAPTIONS


def test_a_dataset_that_is_not_there(command: Command, sets: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    said = command("tags", "mascott", "--datasets", sets)
    assert said.code == 2 and "mascott" in said.errors[0] and "There is mascot." in said.errors[0]
    said = command("tags", "mascot", "--datasets", tmp_path / "none")
    assert said.code == 2 and "`prepare`" in said.errors[0]
    assert contents(tmp_path) == before

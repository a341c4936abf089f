"""Captions by the API, held against their files: edited one by one and all at once, undone, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_trainer.api.sets import SETS
from tests.api.conftest import V1, Client, ConfigOf, png

HERE = f"{V1}/datasets/set"
CAPTIONS = {"1": "zdm, solo, smile", "2": "zdm, solo, Blue_Eyes\nsecond line", "3": "zdm, hat", "4": ""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inner = tmp_path / "datasets" / "set" / "10_zdm"
    inner.mkdir(parents=True)
    for name, caption in CAPTIONS.items():
        (inner / f"{name}.png").write_bytes(png())
        if caption:
            (inner / f"{name}.txt").write_text(caption, encoding="utf-8")
    return inner


def captions(folder: Path) -> dict[str, str]:
    """What the files hold once everything is written."""
    SETS.settle(folder.parent)
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.txt")}


def edit(client: Client, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post(f"{HERE}/edits", json=body).json()
    return answer


def id_of(client: Client, file: str) -> int:
    pictures = client.get(f"{HERE}/pictures").json()["pictures"]
    return next(picture["id"] for picture in pictures if picture["file"] == file)


def test_a_caption_is_written_as_it_is_given(client: Client, folder: Path) -> None:
    text = "ずんだもん, green hair\r\n(not trained)"
    ids = {str(id_of(client, "1.png")): text, str(id_of(client, "4.png")): "zdm"}
    answer = client.put(f"{HERE}/captions", json={"captions": ids}).json()
    assert (answer["changed"], answer["redo"]) == (2, "") and answer["undo"]
    SETS.settle(folder.parent)
    assert (folder / "1.txt").read_bytes() == text.encode() and captions(folder)["4"] == "zdm"


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"edit": "remove", "tags": ["solo", "blue eyes"]}, {"1": "zdm, smile", "2": "zdm\nsecond line"}),
        ({"edit": "replace", "tags": ["solo"], "by": "1girl, alone"},
         {"1": "zdm, 1girl, alone, smile", "2": "zdm, 1girl, alone, Blue_Eyes\nsecond line"}),
        ({"edit": "add", "tags": ["hat"], "at": "start"},
         {"1": "hat, zdm, solo, smile", "2": "hat, zdm, solo, Blue_Eyes\nsecond line", "4": "hat"}),
        ({"edit": "sort", "tags": ["zdm"]}, {"1": "zdm, smile, solo", "2": "zdm, Blue_Eyes, solo\nsecond line"}),
        ({"edit": "trigger", "tags": ["hat"]},
         {"1": "hat, zdm, solo, smile", "2": "hat, zdm, solo, Blue_Eyes\nsecond line", "3": "hat, zdm", "4": "hat"}),
        ({"edit": "dedupe"}, {}),
    ],
)  # fmt: skip
def test_an_edit_of_all_captions_is_in_their_files_and_is_undone(
    client: Client, folder: Path, body: dict[str, Any], changed: dict[str, str]
) -> None:
    before = captions(folder)
    answer = edit(client, **body)
    assert answer["changed"] == len(changed) and captions(folder) == {**before, **changed}
    if not changed:
        return
    undone = client.post(f"{HERE}/undo").json()
    assert undone["step"]["what"] == answer["what"] == undone["redo"] and undone["undo"] == ""
    assert captions(folder) == before
    assert client.post(f"{HERE}/redo").json()["undo"] == answer["what"]
    assert captions(folder) == {**before, **changed}


def test_an_edit_of_some_captions_leaves_the_others(client: Client, folder: Path) -> None:
    assert edit(client, edit="remove", tags=["solo"], pictures=[id_of(client, "1.png")])["changed"] == 1
    assert captions(folder)["1"] == "zdm, smile" and "solo" in captions(folder)["2"]


def test_steps_are_undone_in_turn(client: Client, folder: Path) -> None:
    before = captions(folder)
    for tag in ("solo", "hat"):
        edit(client, edit="remove", tags=[tag])
    assert [client.post(f"{HERE}/undo").json()["step"]["what"] for _ in range(2)] == ["removed hat", "removed solo"]
    assert client.post(f"{HERE}/undo").json()["step"] is None and captions(folder) == before
    again = client.post(f"{HERE}/redo").json()
    assert (again["step"]["what"], again["undo"], again["redo"]) == ("removed solo", "removed solo", "removed hat")


def test_what_a_person_writes_meanwhile_is_kept(client: Client, folder: Path) -> None:
    edit(client, edit="remove", tags=["solo"])
    captions(folder)
    (folder / "1.txt").write_text("by hand", encoding="utf-8")
    SETS.settle(folder.parent)
    assert client.post(f"{HERE}/undo").json()["step"]["what"] == "edited outside"
    assert captions(folder)["1"] == "zdm, smile"


def test_tags_are_counted_and_advised_on(client: Client, folder: Path) -> None:
    (folder / "4.txt").write_text("zdm, long hair, short hair", encoding="utf-8")
    facts = client.get(f"{HERE}/tags").json()
    assert (facts["pictures"], facts["captioned"], facts["undo"], facts["redo"]) == (4, 4, "", "")
    counts = {row["tag"]: row["count"] for row in facts["tags"]}
    assert counts == {"zdm": 4, "solo": 2, "smile": 1, "Blue_Eyes": 1, "hat": 1, "long hair": 1, "short hair": 1}
    advice = facts["advice"]
    assert advice["fold"] == []  # the folder's own word is no tag to fold
    [wrong] = advice["contradictions"]
    assert wrong["picture"] == id_of(client, "4.png") and set(wrong["tags"]) == {"long hair", "short hair"}
    assert {"tag": "hat", "picture": id_of(client, "3.png")} in advice["one_offs"]
    assert [row["tag"] for row in client.get(f"{HERE}/tags?trigger=other").json()["advice"]["fold"]] == ["zdm"]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"edit": "shout"}, {"edit": "remove", "tags": []}, {"edit": "remove", "tags": [" "]},
        {"edit": "remove", "tags": [1]}, {"edit": "replace", "tags": ["solo"]},
        {"edit": "add", "tags": ["a"], "at": "x"},
        {"edit": "replace", "tags": ["solo", "hat"], "by": "x"}, {"edit": "remove", "tags": ["a"], "pictures": ["1"]},
        {"edit": "remove", "tags": ["a"], "more": 1},
    ],
)  # fmt: skip
def test_an_edit_that_is_none_is_refused_and_changes_nothing(
    client: Client, folder: Path, body: dict[str, Any]
) -> None:
    before = captions(folder)
    answer = client.post(f"{HERE}/edits", json=body)
    assert answer.status_code == 422 and answer.json()["problems"]
    assert captions(folder) == before and client.get(f"{HERE}/tags").json()["undo"] == ""


@pytest.mark.parametrize("given", [{"x": "a"}, {"1": 5}, {"1": "a" * 70_000}, {"1": None}])
def test_a_caption_that_no_file_could_hold_is_refused(client: Client, folder: Path, given: dict[str, Any]) -> None:
    before = captions(folder)
    assert client.put(f"{HERE}/captions", json={"captions": given}).status_code == 422
    assert captions(folder) == before


def test_pictures_that_are_gone_are_passed_over(client: Client, folder: Path) -> None:
    answer = client.put(f"{HERE}/captions", json={"captions": {"999999": "a"}}).json()
    assert (answer["changed"], answer["step"]) == (0, 0)


def test_a_job_finds_the_captions_as_they_were_edited(client: Client, dataset: Path, config_of: ConfigOf) -> None:
    client.post(f"{V1}/datasets/zdm/edits", json={"edit": "replace", "tags": ["green"], "by": "blue"})
    assert client.post(f"{V1}/jobs", json={"config": config_of()}).status_code == 201
    assert (dataset / "10_zdm" / "a.txt").read_text(encoding="utf-8") == "zdm, blue"

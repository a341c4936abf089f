"""An epoch kept under a name: what lands in the folder, and whose files stay as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from lora_trainer.config import BadInput
from lora_trainer.jobs.card import read_card
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.keeping import keep, name_fault, suggestion
from tests.jobs.made import lora, train


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "1")
    folder.path.mkdir()
    train(folder, epochs=3)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "Lora" / "mascot.safetensors"


def epoch(folder: JobFolder, number: int) -> Path:
    return folder.models / f"zdm-{number:06d}.safetensors"


def said(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as opened:
        return dict(opened.metadata())


def problem(*given: Any, **options: Any) -> Any:
    with pytest.raises(BadInput) as caught:
        keep(*given, **options)
    (found,) = caught.value.problems
    return found


def test_it_calls_itself_as_its_file_is_called(folder: JobFolder, target: Path) -> None:
    keep(folder, epoch(folder, 1), target)
    assert said(target) == {**said(epoch(folder, 1)), "ss_output_name": "mascot"}
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "mascot.json",
        "mascot.png",
        "mascot.safetensors",
    ]


def test_the_same_again_changes_nothing_but_the_weight(folder: JobFolder, target: Path) -> None:
    keep(folder, epoch(folder, 1), target)
    before = {path: path.read_bytes() for path in target.parent.iterdir()}
    keep(folder, epoch(folder, 1), target)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before
    card = read_card(target)
    keep(folder, epoch(folder, 1), target, weight=0.65)
    assert read_card(target) == {**card, "preferred weight": 0.65}
    assert target.read_bytes() == before[target]


def test_the_same_under_the_jobs_own_name_is_the_same_still(folder: JobFolder, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(epoch(folder, 1).read_bytes())
    keep(folder, epoch(folder, 1), target)
    assert target.read_bytes() == epoch(folder, 1).read_bytes()


def test_another_file_is_never_written_over(folder: JobFolder, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(lora(64))
    for replace in (False, True):
        found = problem(folder, epoch(folder, 1), target, replace=replace)
        assert found.setting == "name" and "is another file" in found.problem
    assert [path.name for path in target.parent.iterdir()] == [target.name] and target.read_bytes() == lora(64)


def test_an_epoch_of_this_job_gives_way_when_asked(folder: JobFolder, target: Path) -> None:
    keep(folder, epoch(folder, 1), target)
    before = target.read_bytes()
    found = problem(folder, epoch(folder, 2), target)
    assert found.setting == "replace" and "zdm-000001.safetensors" in found.problem
    assert target.read_bytes() == before
    keep(folder, epoch(folder, 2), target, replace=True)
    assert said(target) == {**said(epoch(folder, 2)), "ss_output_name": "mascot"}
    assert target.with_suffix(".png").read_bytes() == (folder.samples / "epoch000002-00-42.png").read_bytes()
    assert "Epoch: 2" in read_card(target)["notes"]
    assert said(epoch(folder, 1))["ss_epoch"] == "1", "the job keeps all of its own"


def test_one_that_the_job_has_no_more_stays(folder: JobFolder, target: Path) -> None:
    keep(folder, epoch(folder, 1), target)
    epoch(folder, 1).unlink()
    assert problem(folder, epoch(folder, 2), target, replace=True).setting == "name"


def test_what_its_user_wrote_and_drew_stays(folder: JobFolder, target: Path) -> None:
    keep(folder, epoch(folder, 1), target)
    own = {**read_card(target), "activation text": "zdm, smile", "sd version": "SDXL", "mine": [1]}
    target.with_suffix(".json").write_text(json.dumps(own), encoding="utf-8")
    target.with_suffix(".png").write_bytes(b"mine")
    keep(folder, epoch(folder, 2), target, replace=True, picture="epoch000002-01-42.png")
    card = read_card(target)
    assert "Epoch: 2" in card["notes"]
    assert {**card, "notes": ""} == {**own, "notes": ""}
    assert target.with_suffix(".png").read_bytes() == b"mine"


def test_a_picture_is_chosen(folder: JobFolder, target: Path) -> None:
    names = suggestion(folder, epoch(folder, 2), target)["pictures"]
    assert names == ["epoch000002-00-42.png", "epoch000002-01-42.png"]
    (folder.samples / names[1]).write_bytes(b"another picture")
    keep(folder, epoch(folder, 2), target)
    keep(folder, epoch(folder, 2), target, picture=names[1])
    assert target.with_suffix(".png").read_bytes() == b"another picture"


@pytest.mark.parametrize("picture", ["", "nowhere.png", "../models/zdm.safetensors", "/etc/hostname", "..", "a\0b"])
def test_no_other_file_becomes_a_picture(folder: JobFolder, target: Path, picture: str) -> None:
    assert problem(folder, epoch(folder, 1), target, picture=picture).setting == "picture"
    assert not target.parent.exists()


@pytest.mark.parametrize("weight", [0, -1, 2.01, float("nan"), float("inf")])
def test_a_card_takes_the_webuis_weights(folder: JobFolder, target: Path, weight: float) -> None:
    assert problem(folder, epoch(folder, 1), target, weight=weight).setting == "weight"
    assert not target.parent.exists()


def test_a_free_name_is_offered(folder: JobFolder, target: Path) -> None:
    assert suggestion(folder, epoch(folder, 1), target)["name"] == "mascot"
    keep(folder, epoch(folder, 1), target)
    assert suggestion(folder, epoch(folder, 1), target)["name"] == "mascot"
    assert suggestion(folder, epoch(folder, 2), target)["name"] == "mascot-v2"
    target.with_name("mascot-v2.safetensors").write_bytes(b"mine")
    assert suggestion(folder, epoch(folder, 2), target)["name"] == "mascot-v3"


@pytest.mark.parametrize(("name", "is_fit"), [("zdm", True), ("ずんだ (1), v2", True), ("a=b", False), ("a:b", False)])
def test_a_name_stands_in_a_prompt(name: str, is_fit: bool) -> None:
    assert (name_fault(name) is None) == is_fit

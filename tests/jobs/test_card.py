"""The WebUI's card beside a LoRA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lora_trainer.config import BadInput
from lora_trainer.jobs.card import add_card, card_of, change_card, files_of, picture_of, read_card
from lora_trainer.jobs.folder import JobFolder
from tests.jobs.made import lora, train


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder(tmp_path / "1")
    folder.path.mkdir()
    train(folder)
    return folder


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "Lora" / "my.zdm.safetensors"
    path.parent.mkdir()
    path.write_bytes(lora())
    return path


def test_a_card_has_the_words_and_the_preview_of_its_epoch(folder: JobFolder, published: Path) -> None:
    add_card(published, folder.models / "zdm-000001.safetensors", folder)
    words = json.loads((published.parent / "my.zdm.json").read_text(encoding="utf-8"))
    assert words == {
        "description": "",
        "sd version": "SD1",
        "activation text": "zdm",
        "preferred weight": 0.8,
        "negative text": "",
        "notes": "Base model: base.safetensors\nEpoch: 1\nSteps: 70",
    }
    picture = published.parent / "my.zdm.png"
    assert picture.read_bytes() == (folder.samples / "epoch000001-00-42.png").read_bytes()
    assert picture_of(published) == picture and read_card(published) == words
    assert set(files_of(published)) == set(published.parent.iterdir())
    picture.write_bytes(b"edited")
    assert (folder.samples / "epoch000001-00-42.png").read_bytes() != b"edited", "the card's picture is a copy"


@pytest.mark.parametrize("name", ["my.zdm.png", "my.zdm.preview.png", "my.zdm.jpg"])
def test_what_the_user_has_is_kept(folder: JobFolder, published: Path, name: str) -> None:
    published.with_name("my.zdm.json").write_text('{"activation text": "mine"}', encoding="utf-8")
    published.with_name(name).write_bytes(b"mine")
    add_card(published, folder.models / "zdm-000001.safetensors", folder)
    assert read_card(published) == {"activation text": "mine"}
    assert sorted(path.name for path in published.parent.iterdir()) == sorted([published.name, "my.zdm.json", name])
    assert published.with_name(name).read_bytes() == b"mine"


def test_a_file_that_is_no_lora_gets_no_card(folder: JobFolder, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no weights")
    add_card(other, folder.models / "zdm.safetensors", folder)
    assert files_of(other) == [other]


@pytest.mark.parametrize(
    ("base", "version"),
    [("sd_v1", "SD1"), ("sd_v2_768_v", "SD2"), ("sdxl_base_v1-0", "SDXL"), ("flux1", "Flux"), ("", "Unknown")],
)
def test_a_base_has_the_webuis_word(base: str, version: str) -> None:
    assert card_of({"ss_base_model_version": base})["sd version"] == version


def test_a_comment_is_the_description() -> None:
    assert card_of({"ss_training_comment": "my mascot"})["description"] == "my mascot"
    assert card_of({"ss_training_comment": "None"})["description"] == ""


@pytest.mark.parametrize("text", ["", "[1]", '"x"', "{", "\x00"])
def test_words_that_cannot_be_read_are_none(published: Path, text: str) -> None:
    published.with_name("my.zdm.json").write_text(text, encoding="utf-8")
    assert read_card(published) == {}


def test_a_card_is_changed_where_it_is_asked_to_be(published: Path) -> None:
    change_card(published, {"preferred weight": 0.7})
    made = card_of({"ss_base_model_version": "sd_v1", "modelspec.trigger_phrase": "zdm"})
    assert {**read_card(published), "notes": ""} == {**made, "preferred weight": 0.7}
    published.with_name("my.zdm.json").write_text('{"mine": [1], "preferred weight": 0.3}', encoding="utf-8")
    change_card(published, {"preferred weight": 0.6})
    assert read_card(published) == {"mine": [1], "preferred weight": 0.6}


def test_a_card_that_cannot_be_read_is_not_changed(folder: JobFolder, published: Path) -> None:
    words = published.with_name("my.zdm.json")
    words.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"my\.zdm\.json"):
        change_card(published, {"preferred weight": 0.7})
    add_card(published, folder.models / "zdm-000001.safetensors", folder, weight=0.7)
    assert words.read_text(encoding="utf-8") == "{"

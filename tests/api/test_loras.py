"""The host's LoRAs by the API: listed, shown, put away and put back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lora_trainer.hosts.host import HostProblem
from tests.api.conftest import V1, Client, FakeHost, png
from tests.jobs.made import lora

LORAS = f"{V1}/loras"


@pytest.fixture
def folder(host: FakeHost) -> Path:
    """Three LoRAs, of which the second has a card and the third lies in a folder of its own."""
    folder = host.home / "Lora"
    (folder / "styles").mkdir()
    (folder / "zdm.safetensors").write_bytes(lora(ss_training_comment="my mascot"))
    (folder / "pot v1.5.safetensors").write_bytes(lora(8, **{"modelspec.trigger_phrase": "", "ss_sd_model_name": "x"}))
    (folder / "styles" / "ずんだ.safetensors").write_bytes(lora(16))
    card = {"activation text": "teapot", "preferred weight": 0.6, "description": "brown clay"}
    (folder / "pot v1.5.json").write_text(json.dumps(card), encoding="utf-8")
    (folder / "pot v1.5.preview.png").write_bytes(png("brown"))
    for age, name in enumerate(("zdm", "pot v1.5", "styles/ずんだ")):
        os.utime(folder / f"{name}.safetensors", (1000 - age, 1000 - age))
    return folder


def listed(client: Client, **query: str) -> list[str]:
    return [each["path"] for each in client.get(LORAS, params=query).json()["loras"]]


def test_the_newest_is_first_and_each_says_what_its_file_says(client: Client, folder: Path) -> None:
    answer = client.get(LORAS).json()
    assert answer["count"] == 3
    zdm, pot, zunda = answer["loras"]
    assert [each["path"] for each in (zdm, pot, zunda)] == [
        "zdm.safetensors",
        "pot v1.5.safetensors",
        "styles/ずんだ.safetensors",
    ]
    assert (zdm["name"], zdm["size"], zdm["modified"]) == ("zdm", len(lora(ss_training_comment="my mascot")), 1000)
    known = {
        "trigger": "zdm",
        "weight": 0.8,
        "description": "my mascot",
        "family": "sd15",
        "kind": "LoRA",
        "rank": 4,
        "steps": 70,
        "epoch": 1,
    }
    assert {name: zdm[name] for name in known} == known
    assert zdm["tags"] == ["zdm", "green hair"] and zdm["picture"] is None and zdm["trouble"] == ""
    assert (zunda["name"], zunda["rank"]) == ("ずんだ", 16)
    assert Path(zunda["file"]) == folder / "styles" / "ずんだ.safetensors"


def test_the_base_is_one_of_the_hosts_if_it_has_it(client: Client, folder: Path) -> None:
    zdm, pot, _ = client.get(LORAS).json()["loras"]
    assert (zdm["base"], zdm["checkpoint"]) == ("base.safetensors", "base.safetensors [0123456789]")
    assert (pot["base"], pot["checkpoint"]) == ("x", "")


def test_what_the_user_wrote_on_the_card_goes_before_what_the_file_says(client: Client, folder: Path) -> None:
    _, pot, _ = client.get(LORAS).json()["loras"]
    assert (pot["trigger"], pot["weight"], pot["description"]) == ("teapot", 0.6, "brown clay")
    assert client.get(f"{V1}/{pot['picture']}").content == png("brown")


def test_a_changed_file_is_read_again(client: Client, folder: Path) -> None:
    assert client.get(LORAS).json()["loras"][0]["rank"] == 4
    (folder / "zdm.safetensors").write_bytes(lora(64))
    assert client.get(LORAS).json()["loras"][0]["rank"] == 64


FOUND = {"zdm": 3, "TEAPOT": 1, "clay pot": 1, "styles": 1, "ずんだ": 1, "mascot": 1, "hair": 3, "sd_v1": 3, "sdxl": 0}


@pytest.mark.parametrize(("words", "found"), FOUND.items())
def test_they_are_searched_by_all_that_is_known_of_them(client: Client, folder: Path, words: str, found: int) -> None:
    assert len(listed(client, search=words)) == found


def test_a_list_is_told_in_parts(client: Client, folder: Path) -> None:
    everything = listed(client)
    assert [listed(client, limit="1", offset=str(place)) for place in range(4)] == [[each] for each in everything] + [
        []
    ]
    assert client.get(LORAS, params={"limit": "1"}).json()["count"] == 3


@pytest.mark.parametrize("data", [b"", b"12345", b"\x89PNG", lora()[:-9]])
def test_what_cannot_be_read_is_listed_with_its_trouble(client: Client, host: FakeHost, data: bytes) -> None:
    (host.home / "Lora" / "bad.safetensors").write_bytes(data)
    (bad,) = client.get(LORAS).json()["loras"]
    assert bad["name"] == "bad" and bad["trouble"] and (bad["trigger"], bad["family"], bad["rank"]) == ("", "", 0)


def test_a_lora_is_downloaded(client: Client, folder: Path) -> None:
    answer = client.get(f"{LORAS}/styles/ずんだ.safetensors/file")
    assert answer.content == lora(16) and "attachment" in answer.headers["content-disposition"]
    assert client.get(f"{LORAS}/zdm.safetensors/picture").status_code == 404


def test_a_deleted_lora_is_put_aside_with_its_card_and_can_come_back(client: Client, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    aside = client.delete(f"{LORAS}/pot v1.5.safetensors").json()["aside"]
    assert listed(client) == ["zdm.safetensors", "styles/ずんだ.safetensors"]
    kept = [path for path in folder.rglob("*") if path.is_file() and path not in before]
    assert sorted(path.read_bytes() for path in kept) == sorted(
        data for path, data in before.items() if path.stem.startswith("pot")
    )
    assert not [path for path in kept if path.suffix in (".safetensors", ".png")], "a host may look into hidden folders"
    assert client.post(f"{LORAS}/restore", json={"aside": aside}).status_code == 204
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_two_of_one_name_are_put_aside_side_by_side(client: Client, folder: Path) -> None:
    first = client.delete(f"{LORAS}/zdm.safetensors").json()["aside"]
    (folder / "zdm.safetensors").write_bytes(lora(64))
    second = client.delete(f"{LORAS}/zdm.safetensors").json()["aside"]
    assert first != second
    assert client.post(f"{LORAS}/restore", json={"aside": first}).status_code == 204
    refused = client.post(f"{LORAS}/restore", json={"aside": second})
    assert refused.status_code == 409 and "zdm.safetensors" in refused.json()["detail"]
    assert (folder / "zdm.safetensors").read_bytes() == lora(ss_training_comment="my mascot")


OUTSIDE = (
    "nowhere.safetensors",
    "zdm",
    "pot v1.5.json",
    "../base.safetensors",
    "styles/../../base.safetensors",
    "%2e%2e/base.safetensors",
    "/etc/passwd.safetensors",
    "styles",
    ".hidden.safetensors",
    "zdm.safetensors%00",
)


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_other_file_is_shown_or_put_away(client: Client, folder: Path, path: str) -> None:
    (folder / ".hidden.safetensors").write_bytes(lora())
    before = sorted(folder.parent.rglob("*"))
    for end in ("/file", "/picture"):
        assert client.get(f"{LORAS}/{path}{end}").status_code in (404, 405)
    assert client.get(f"{LORAS}/{path}/use").status_code in (404, 405)
    assert client.post(f"{LORAS}/{path}/card", json={"notes": "x"}).status_code in (404, 405)
    assert client.delete(f"{LORAS}/{path}").status_code in (404, 405)
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "aside", ["", ".", "..", "styles", ".deleted", "../Lora/.deleted/x", ".deleted/nowhere", "\x00"]
)
def test_only_what_was_put_aside_is_put_back(client: Client, folder: Path, aside: str) -> None:
    (folder / ".deleted").mkdir()
    assert client.post(f"{LORAS}/restore", json={"aside": aside}).status_code in (404, 422)
    assert client.post(f"{LORAS}/restore", json={}).status_code == 422
    assert len(listed(client)) == 3


def test_the_host_hears_of_what_comes_and_goes(client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def refresh(host: FakeHost) -> None:
        told.append(sorted(path.name for path in folder.glob("*.safetensors")))
        raise HostProblem("It can't look now. Look later.")

    monkeypatch.setattr(FakeHost, "refresh_loras", refresh)
    aside = client.delete(f"{LORAS}/zdm.safetensors").json()["aside"]
    client.post(f"{LORAS}/restore", json={"aside": aside})
    assert told == [["pot v1.5.safetensors"], ["pot v1.5.safetensors", "zdm.safetensors"]]


def test_what_a_prompt_needs_is_read_from_the_card_as_it_is_then(client: Client, folder: Path) -> None:
    told = client.get(f"{LORAS}/pot v1.5.safetensors/use").json()
    assert told == {
        "name": "pot v1.5",
        "names": ["pot v1.5"],  # it calls itself zdm, and there is a file of that name
        "weight": 0.6,
        "trigger": "teapot",
        "negative": "",
        "base": "x",
        "checkpoint": "",
        "chosen": False,
    }
    (folder / "pot v1.5.json").write_text(json.dumps({"negative text": "blurry", "preferred weight": 0}), "utf-8")
    (folder / "zdm.safetensors").rename(folder / "mine.safetensors")
    told = client.get(f"{LORAS}/pot v1.5.safetensors/use").json()
    assert (told["names"], told["weight"], told["negative"]) == (["pot v1.5", "zdm"], 0.8, "blurry")


@pytest.mark.parametrize(("loaded", "chosen"), [("", False), ("base.safetensors [0123456789]", True)])
def test_a_base_that_the_host_has_already_is_told(
    client: Client, folder: Path, monkeypatch: pytest.MonkeyPatch, loaded: str, chosen: bool
) -> None:
    monkeypatch.setattr(FakeHost, "current_checkpoint", lambda host: loaded)
    told = client.get(f"{LORAS}/zdm.safetensors/use").json()
    assert (told["checkpoint"], told["chosen"]) == ("base.safetensors [0123456789]", chosen)


@pytest.mark.parametrize("weight", ["NaN", "Infinity", "0", '"much"', "null"])
def test_a_weight_that_is_none_is_the_usual_one(client: Client, folder: Path, weight: str) -> None:
    (folder / "zdm.json").write_text('{"preferred weight": ' + weight + "}", encoding="utf-8")
    assert client.get(LORAS).json()["loras"][0]["weight"] == 0.8


def test_a_field_of_the_card_is_written_and_the_others_stay(client: Client, folder: Path) -> None:
    address = f"{LORAS}/pot v1.5.safetensors/card"
    assert client.post(address, json={"weight": 0.75, "negative": "blurry"}).status_code == 204
    assert json.loads((folder / "pot v1.5.json").read_text(encoding="utf-8")) == {
        "activation text": "teapot",
        "preferred weight": 0.75,
        "description": "brown clay",
        "negative text": "blurry",
    }
    assert client.post(f"{LORAS}/zdm.safetensors/card", json={"notes": "mine"}).status_code == 204
    made = json.loads((folder / "zdm.json").read_text(encoding="utf-8"))
    assert (made["notes"], made["activation text"], made["preferred weight"]) == ("mine", "zdm", 0.8)


@pytest.mark.parametrize(
    "body", [{"weight": 0}, {"weight": 2.5}, {"weight": "1"}, {"weight": True}, {"sd version": ""}]
)
def test_a_card_takes_only_what_the_webui_has(client: Client, folder: Path, body: dict[str, object]) -> None:
    before = (folder / "pot v1.5.json").read_bytes()
    assert client.post(f"{LORAS}/pot v1.5.safetensors/card", json=body).status_code == 422
    assert (folder / "pot v1.5.json").read_bytes() == before

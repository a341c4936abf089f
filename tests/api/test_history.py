"""A job's history by the API: held against pictures and files that a training has left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from lora_trainer.config import load_toml
from lora_trainer.config.interchange.refill import read_lora
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, ConfigOf, FakeHost
from tests.jobs.made import COLOURS, draw, train

JOBS = f"{V1}/jobs"


@pytest.fixture
def job(client: Client, config_of: ConfigOf) -> int:
    answer = client.post(JOBS, json={"config": config_of(preview_prompts=["{trigger}"], trigger_word="zdm")})
    return int(answer.json()["id"])


def test_a_jobs_history_is_its_moments(client: Client, queue: Queue, job: int) -> None:
    assert client.get(f"{JOBS}/{job}/history").json()["moments"] == []
    train(queue.job_folder(job))
    told = client.get(f"{JOBS}/{job}/history").json()
    assert told["job"] == client.get(f"{JOBS}/{job}").json()
    assert (told["prompts"], told["seed"]) == (["zdm", "zdm, red"], 42)
    assert [(each["epoch"], each["step"], each["loras"]) for each in told["moments"]] == [
        (0, 0, []),
        (1, 70, ["zdm-000001.safetensors"]),
        (2, 140, ["zdm.safetensors"]),
    ]
    for moment, colour in zip(told["moments"], COLOURS):
        for name in moment["previews"]:
            picture = client.get(f"{JOBS}/{job}/samples/{name}").content
            assert Image.open(io.BytesIO(picture)).getpixel((0, 0)) == ImageColor.getrgb(colour)


def test_a_prompt_without_a_picture_has_none(client: Client, queue: Queue, job: int) -> None:
    train(queue.job_folder(job), prompts=("zdm",))
    draw(queue.job_folder(job), "step00000100-01-42.png", "red", epoch=2, step=100, prompt="zdm, red", number=1)
    moments = client.get(f"{JOBS}/{job}/history").json()["moments"]
    assert [each["previews"].count(None) for each in moments] == [1, 1, 1, 1]


def test_the_contact_sheet_has_every_preview_in_its_row(client: Client, queue: Queue, job: int) -> None:
    assert client.get(f"{JOBS}/{job}/contact_sheet").status_code == 404
    train(queue.job_folder(job), epochs=3)
    (queue.job_folder(job).samples / "epoch000003-01-42.png").write_bytes(b"damaged")
    answer = client.get(f"{JOBS}/{job}/contact_sheet")
    assert answer.headers["content-type"] == "image/png" and "zdm.png" in answer.headers["content-disposition"]
    sheet = np.asarray(Image.open(io.BytesIO(answer.content)))
    tops, counts = [], []
    for colour in COLOURS:
        rows, columns = np.nonzero((sheet == ImageColor.getrgb(colour)).all(-1))
        tops.append(rows.min())
        counts.append(len(rows))
        assert len(np.unique(columns)) == (160 if colour == COLOURS[-1] else 320)
    assert tops == sorted(tops) and counts == [2 * 160**2] * 3 + [160**2]


def test_the_config_can_be_had_as_toml(client: Client, queue: Queue, job: int) -> None:
    answer = client.get(f"{JOBS}/{job}/config.toml")
    assert answer.headers["content-type"].startswith("text/plain")
    assert load_toml(answer.text) == queue.work(job).config


def test_an_epoch_that_is_kept_has_its_card_and_the_host_hears_of_it(
    client: Client, queue: Queue, host: FakeHost, job: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(queue.job_folder(job))
    told: list[FakeHost] = []
    monkeypatch.setattr(FakeHost, "refresh_loras", lambda host: told.append(host))
    kept = client.post(f"{JOBS}/{job}/keep", json={"file": "zdm-000001.safetensors", "name": "ずんだもん"})
    assert kept.status_code == 200 and len(told) == 1
    beside = Path(kept.json()["lora"])
    described, _ = read_lora(beside)
    assert beside == host.home / "Lora" / "ずんだもん.safetensors"
    assert (described["ss_epoch"], described["ss_output_name"]) == ("1", "ずんだもん")
    assert json.loads(beside.with_suffix(".json").read_text(encoding="utf-8"))["activation text"] == "zdm"
    assert Image.open(beside.with_suffix(".png")).getpixel((0, 0)) == ImageColor.getrgb(COLOURS[1])


def test_a_name_that_is_taken_is_told_and_another_one_offered(
    client: Client, queue: Queue, host: FakeHost, job: int
) -> None:
    train(queue.job_folder(job), epochs=3)
    (host.home / "Lora" / "theirs.safetensors").write_bytes(b"theirs")
    first, second = ({"file": f"zdm-00000{epoch}.safetensors"} for epoch in (1, 2))

    def keep(**given: object) -> tuple[int, list[str]]:
        answer = client.post(f"{JOBS}/{job}/keep", json=given)
        return answer.status_code, [problem["setting"] for problem in answer.json().get("problems", [])]

    assert keep(**first, name="theirs", replace=True) == (422, ["name"])
    offered = client.get(f"{JOBS}/{job}/keep", params={**first, "name": "theirs"}).json()
    assert offered["name"] == "theirs-v2" and offered["weight"] == 0.8
    assert offered["pictures"] == ["epoch000001-00-42.png", "epoch000001-01-42.png"]
    assert keep(**first, name="mine", weight=1, picture=offered["pictures"][1]) == (200, [])
    assert keep(**second, name="mine") == (422, ["replace"])
    assert keep(**second, name="mine", weight=0.55, replace=True) == (200, [])
    card = json.loads((host.home / "Lora" / "mine.json").read_text(encoding="utf-8"))
    assert card["preferred weight"] == 0.55 and "Epoch: 2" in card["notes"]
    assert (host.home / "Lora" / "theirs.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("given", "setting"),
    [
        ({"file": "nowhere.safetensors"}, "file"),
        ({"file": "zdm.safetensors", "name": "../../zdm"}, "name"),
        ({"file": "zdm.safetensors", "name": "a=b"}, "name"),
        ({"file": "zdm.safetensors", "weight": "much"}, "weight"),
        ({"file": "zdm.safetensors", "weight": True}, "weight"),
        ({"file": "zdm.safetensors", "weight": 3}, "weight"),
        ({"file": "zdm.safetensors", "picture": "../config.toml"}, "picture"),
        ({"file": "zdm.safetensors", "replace": 1}, "replace"),
        ({}, "file"),
    ],
)
def test_what_cannot_be_kept_is_told(
    client: Client, queue: Queue, host: FakeHost, job: int, given: dict[str, object], setting: str
) -> None:
    train(queue.job_folder(job))
    answer = client.post(f"{JOBS}/{job}/keep", json=given)
    assert answer.status_code == 422 and [each["setting"] for each in answer.json()["problems"]] == [setting]
    assert not list((host.home / "Lora").iterdir())


def test_a_name_is_offered_for_a_file_of_the_job_only(client: Client, queue: Queue, job: int) -> None:
    train(queue.job_folder(job))
    for query in ({}, {"file": "nowhere"}, {"file": "zdm.safetensors", "name": "../zdm"}):
        assert client.get(f"{JOBS}/{job}/keep", params=query).status_code == 422
    assert client.get(f"{JOBS}/99/keep", params={"file": "zdm.safetensors"}).status_code == 404


@pytest.mark.parametrize("path", ["history", "contact_sheet", "config.toml"])
def test_there_is_none_of_a_job_that_is_not_there(client: Client, path: str) -> None:
    assert client.get(f"{JOBS}/1/{path}").status_code == 404

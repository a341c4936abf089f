"""A job's history by the API: held against pictures and files that a training has left."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from lora_trainer.config import load_toml
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, ConfigOf, FakeHost
from tests.jobs.made import COLOURS, draw, lora, train

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
    assert beside == host.home / "Lora" / "ずんだもん.safetensors" and beside.read_bytes() == lora(ss_epoch="1")
    assert json.loads(beside.with_suffix(".json").read_text(encoding="utf-8"))["activation text"] == "zdm"
    assert Image.open(beside.with_suffix(".png")).getpixel((0, 0)) == ImageColor.getrgb(COLOURS[1])


@pytest.mark.parametrize("path", ["history", "contact_sheet", "config.toml"])
def test_there_is_none_of_a_job_that_is_not_there(client: Client, path: str) -> None:
    assert client.get(f"{JOBS}/1/{path}").status_code == 404

"""Grids by the API: what is drawn where little is said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.api import Access, mount
from lora_trainer.config import Config, as_dict
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import CHECKPOINT, V1, Client, FakeHost
from tests.jobs.made import lora

GRID = f"{V1}/loras/grid"


@pytest.fixture
def folder(host: FakeHost) -> Path:
    """A LoRA of our own, one of another trainer, and one that says nothing."""
    folder = host.home / "Lora"
    (folder / "styles").mkdir()
    trained = Config(
        base_model="base.safetensors", trigger_word="zdm", preview_prompts=("{trigger}, red", "{trigger}"), clip_skip=2
    )
    own = {
        "lora_trainer.config": json.dumps(as_dict(trained, whole_paths=False)),
        "ss_sd_model_name": "base.safetensors",
    }
    (folder / "zdm.safetensors").write_bytes(lora(**own))
    (folder / "styles" / "pot v1.5.safetensors").write_bytes(lora(ss_sd_model_name="elsewhere.safetensors"))
    bare = {"modelspec.trigger_phrase": "", "ss_sd_model_name": "", "ss_tag_frequency": ""}
    (folder / "bare.safetensors").write_bytes(lora(**bare))
    return folder


def test_a_lora_is_drawn_as_it_was_trained(client: Client, queue: Queue, host: FakeHost, folder: Path) -> None:
    suggested = client.get(GRID, params={"lora": "zdm"}).json()
    prompts = ["zdm, red", "zdm"]
    assert suggested == {"base_model": CHECKPOINT, "prompts": prompts, "weights": [0.7, 0.8, 1.0]}
    answer = client.post(GRID, json={"lora": "zdm.safetensors"})
    assert answer.status_code == 201 and answer.json()["kind"] == "grid" and answer.json()["name"] == "zdm"
    work = queue.work(answer.json()["id"])
    assert work.weights == (0.7, 0.8, 1.0) and not work.train and work.prepare is None
    config = work.config
    assert (config.trigger_word, config.clip_skip, config.preview_prompts) == (
        "zdm",
        2,
        ("{trigger}, red", "{trigger}"),
    )
    assert Path(config.base_model) == host.home / "base.safetensors"
    assert Path(config.start_lora or "") == folder / "zdm.safetensors"


def test_what_is_said_counts(client: Client, queue: Queue, folder: Path) -> None:
    said = {"lora": "styles/pot v1.5.safetensors", "base_model": CHECKPOINT, "weights": [1, 0.25], "prompts": ["pot"]}
    first = client.post(GRID, json={"lora": "zdm"}).json()
    job = client.post(GRID, json={**said, "first": True}).json()
    assert [each.id for each in queue.line()] == [job["id"], first["id"]]
    work = queue.work(job["id"])
    assert (work.weights, work.config.preview_prompts, work.name) == ((1.0, 0.25), ("pot",), "pot v1.5")


def test_a_base_that_is_not_here_has_to_be_named(client: Client, folder: Path) -> None:
    suggested = client.get(GRID, params={"lora": "pot v1.5"}).json()
    assert suggested["base_model"] == "" and suggested["prompts"] == ["zdm"]
    answer = client.post(GRID, json={"lora": "pot v1.5"})
    assert answer.status_code == 422
    assert [problem["setting"] for problem in answer.json()["problems"]] == ["base_model"]


def test_every_problem_is_told_at_once(client: Client, queue: Queue, folder: Path) -> None:
    answer = client.post(GRID, json={"lora": "bare", "weights": [9]})
    told = {problem["setting"]: problem["problem"] for problem in answer.json()["problems"]}
    assert set(told) == {"base_model", "weights", "preview_prompts"}
    assert queue.jobs() == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lora": 7},
        {"lora": "zdm", "weights": []},
        {"lora": "zdm", "weights": ["0.8"]},
        {"lora": "zdm", "weights": [True]},
        {"lora": "zdm", "prompts": [1]},
        {"lora": "zdm", "rank": 4},
    ],
)
def test_a_body_that_makes_no_sense_is_refused(client: Client, folder: Path, body: dict[str, Any]) -> None:
    answer = client.post(GRID, json=body)
    assert answer.status_code == 422 and all(problem["remedy"] for problem in answer.json()["problems"])


@pytest.mark.parametrize("name", ["", "gone", "../base", "styles", "/zdm", "a" * 5000])
def test_a_lora_that_is_not_there_is_not_found(client: Client, folder: Path, name: str) -> None:
    assert client.get(GRID, params={"lora": name}).status_code == 404
    assert client.post(GRID, json={"lora": name}).status_code == 404


def test_other_machines_name_no_file_outside(app: Any, queue: Queue, host: FakeHost, folder: Path) -> None:
    mount(app, queue, None, host, Access({"me": "secret"}, None, True, True), folder.parent / "datasets")
    client = Client(app, auth=("me", "secret"))
    outside = str(folder.parent.parent / "secret.safetensors")
    Path(outside).write_bytes(b"weights")
    answer = client.post(GRID, json={"lora": "zdm", "base_model": outside})
    assert answer.status_code == 422 and "outside" in answer.json()["problems"][0]["problem"]

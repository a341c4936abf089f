"""The routes shaped like those of AWS's extension, asked with the requests that its documents and its tests send.

https://github.com/awslabs/stable-diffusion-aws-extension: test/test_04_api_user, test/test_09_api_training, and the
schemas of infrastructure/src/api/trainings and .../datasets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import AWS, V1, Client, ConfigOf, FakeHost, png

TRAININGS, SETS = f"{AWS}/trainings", f"{AWS}/datasets"
NAME = "base.safetensors"


def training(config: dict[str, Any], **params: Any) -> dict[str, Any]:
    whole = {
        "training_params": {
            "training_instance_type": "ml.g5.2xlarge",
            "model": NAME,
            "dataset": "zdm",
            "fm_type": "sd_1_5",
        },
        **params,
        "config_params": config,
    }
    return {"lora_train_type": "kohya", "params": whole}


START = training({"output_name": "new_train_model_name", "save_every_n_epochs": 1, "max_train_epochs": 1})
WITH_TAGGER = training(
    {"output_name": "wd14", "save_every_n_epochs": 1, "max_train_epochs": 1},
    enable_wd14_tagger=True,
    wd14_tagger_params={"character_threshold": "0.7", "general_threshold": "0.8"},
)
OF_ITS_TAB = training(
    {"output_name": "model_name", "save_every_n_epochs": 5, "max_train_epochs": 100, "enable_wd14_tagger": False}
)
IN_SECTIONS = training(
    {
        "saving_arguments": {"output_name": "sections", "save_every_n_epochs": 1},
        "training_arguments": {"max_train_epochs": 1},
    }
)


def said(answer: Any, status: int) -> Any:
    """The data of an answer, whose frame is that of every answer there."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["statusCode"] == status and body.keys() >= {"statusCode", "debug", "message"}
    assert body["debug"].keys() == {"function_url", "log_url", "trace_url"}
    return body.get("data")


def message(answer: Any, status: int) -> str:
    said(answer, status)
    return str(answer.json()["message"])


def pages(client: Client, path: str) -> Iterator[Any]:
    """The data of a list's pages of two."""
    data = said(client.get(f"{path}?limit=2"), 200)
    yield data
    while key := data["last_evaluated_key"]:
        data = said(client.get(path, params={"exclusive_start_key": key, "limit": 2}), 200)
        yield data


@pytest.mark.parametrize(
    ("request_body", "epochs", "every"), [(START, 1, 1), (WITH_TAGGER, 1, 1), (OF_ITS_TAB, 100, 5), (IN_SECTIONS, 1, 1)]
)
def test_a_published_request_starts_a_training(
    client: Client, queue: Queue, host: FakeHost, dataset: Path, request_body: Any, epochs: int, every: int
) -> None:
    data = said(client.post(TRAININGS, json=request_body), 201)
    assert data["status"] == "Starting" and re.fullmatch(r"[a-f0-9\-]{36}", data["id"])
    assert data.keys() >= {"id", "status", "created", "params", "input_location", "output_location"}
    assert isinstance(data["created"], str) and float(data["created"]) > 0
    parts = {"s3_data_path", "training_instance_type", "s3_model_path", "fm_type", "s3_toml_path"}
    assert data["params"]["training_params"].keys() >= parts
    assert data["params"].keys() >= {"config_params", "training_params", "training_type"}
    work = queue.work(1)
    assert (work.config.epochs, work.config.save_every_epochs, work.config.family) == (epochs, every, "sd15")
    assert Path(work.config.base_model) == host.home / NAME
    assert [Path(subset.folder) for subset in work.config.subsets] == [dataset]
    assert Path(work.config.output_folder) == host.home / "Lora"
    assert (work.prepare is not None) == (request_body is WITH_TAGGER)


def test_the_tagger_goes_before_the_training(client: Client, queue: Queue, dataset: Path) -> None:
    said(client.post(TRAININGS, json=WITH_TAGGER), 201)
    work = queue.work(1)
    assert work.prepare and work.train and Path(work.prepare.folder) == dataset
    config = work.config
    assert (config.tagger, config.tag_threshold, config.character_threshold) == ("wd-v3", 0.8, 0.7)
    inside = {"output_name": "inside", "enable_wd14_tagger": True, "wd14_tagger_params": {"general_threshold": "0.6"}}
    data = said(client.post(TRAININGS, json=training(inside)), 201)
    assert queue.work(2).prepare and queue.work(2).config.tag_threshold == 0.6
    assert data["params"]["enable_wd14_tagger"] is True


@pytest.mark.parametrize("kind", ["sd_1_5", "sd_xl", "SD_XL"])
def test_the_family_is_the_one_that_was_said(client: Client, queue: Queue, dataset: Path, kind: str) -> None:
    body = training({"output_name": "a"})
    body["params"]["training_params"]["fm_type"] = kind
    said(client.post(TRAININGS, json=body), 201)
    assert queue.work(1).config.family == {"sd_1_5": "sd15", "sd_xl": "sdxl"}[kind.lower()]


def test_what_is_done_otherwise_here_is_told(client: Client, dataset: Path) -> None:
    asked = {"output_name": "a", "max_train_epochs": 3, "no_such_thing": 4}
    notices = said(client.post(TRAININGS, json=training(asked)), 201)["notices"]
    assert any("no_such_thing = 4" in notice for notice in notices)


@pytest.mark.parametrize("finished", [True, False])
def test_a_name_that_is_taken_is_refused(
    client: Client, queue: Queue, host: FakeHost, dataset: Path, finished: bool
) -> None:
    if finished:
        (host.home / "Lora" / "new_train_model_name.safetensors").write_bytes(b"")
    else:
        said(client.post(TRAININGS, json=START), 201)
    before = queue.jobs()
    text = message(client.post(TRAININGS, json=START), 400)
    assert "new_train_model_name.safetensors already exists" in text
    assert queue.jobs() == before


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lora_train_type": "dreambooth"}, "Invalid lora train type: dreambooth, the valid value is kohya."),
        ({"fm_type": "sd_3"}, "Invalid fm_type sd_3, the valid values are sd_1_5 and sd_xl"),
        ({"model": "other.safetensors"}, "Model not found"),
        ({"dataset": "other"}, "Dataset not found"),
        ({"model": "a" * 5000}, "name or path"),
    ],
)
def test_a_wrong_request_is_told_in_that_apis_words(
    client: Client, queue: Queue, dataset: Path, change: dict[str, str], expected: str
) -> None:
    body = training({"output_name": "a"})
    for name, value in change.items():
        (body if name in body else body["params"]["training_params"])[name] = value
    assert expected in message(client.post(TRAININGS, json=body), 400)
    assert queue.jobs() == []


@pytest.mark.parametrize(
    ("method", "path", "missing"),
    [
        ("POST", TRAININGS, "lora_train_type"),
        ("DELETE", TRAININGS, "training_id_list"),
        ("POST", SETS, "dataset_name"),
        ("DELETE", SETS, "dataset_name_list"),
        ("PUT", f"{SETS}/zdm", "status"),
        ("POST", f"{SETS}/zdm/crop", "max_resolution"),
    ],
)
def test_what_is_missing_is_named(client: Client, dataset: Path, method: str, path: str, missing: str) -> None:
    text = message(client(method, path, json={"bad": ["bad"]}), 400)
    assert "object has missing required properties" in text and missing in text


def test_trainings_are_listed_page_by_page(client: Client, queue: Queue, dataset: Path) -> None:
    for number in range(5):
        said(client.post(TRAININGS, json=training({"output_name": f"a{number}"})), 201)
    names = []
    for data in pages(client, TRAININGS):
        assert data.keys() == {"trainings", "last_evaluated_key"}
        for item in data["trainings"]:
            names.append(item["modelName"])
            keys = {"id", "modelName", "status", "trainType", "created", "sagemakerTrainName", "params"}
            assert item.keys() == keys and item["status"] == "Pending"
            assert item["params"]["config_params"]["output_name"] + ".safetensors" == item["modelName"]
    assert names == [f"a{number}.safetensors" for number in (4, 3, 2, 1, 0)]
    assert len(said(client.get(TRAININGS), 200)["trainings"]) == 5


def test_a_trainings_status_is_told_in_that_apis_words(client: Client, queue: Queue, dataset: Path) -> None:
    id = said(client.post(TRAININGS, json=START), 201)["id"]
    seen = [_status(client, id)]
    queue.store.claim(1.0)
    seen.append(_status(client, id))
    queue.store.change(1, ["running"], step=3)
    seen.append(_status(client, id))
    for status in ("paused", "interrupted", "failed", "finished"):
        queue.store.change(1, [queue.job(1).status], status=status)
        seen.append(_status(client, id))
    assert seen == ["Pending", "Starting", "Training", "Pending", "Stopped", "Failed", "Completed"]


def _status(client: Client, id: str) -> str:
    data = said(client.get(f"{TRAININGS}/{id}"), 200)
    keys = {"id", "job_status", "model_id", "params", "timestamp", "train_type", "sagemaker_train_name", "logs"}
    assert data.keys() >= keys and data["id"] == id
    (listed,) = said(client.get(TRAININGS), 200)["trainings"]
    assert listed["status"] == data["job_status"]
    return str(data["job_status"])


NO_IDS = ("job_uuid", "1", "0" * 36, "00000000-0000-0000-0000-000000000009", "f" * 8 + "-ffff" * 3)


@pytest.mark.parametrize("id", NO_IDS)
def test_a_training_that_is_not_there_is_not_found(client: Client, id: str) -> None:
    assert message(client.get(f"{TRAININGS}/{id}"), 404) == f"Job with id {id} not found"


def test_trainings_are_stopped_and_deleted(client: Client, queue: Queue, host: FakeHost, dataset: Path) -> None:
    ids = [said(client.post(TRAININGS, json=training({"output_name": f"a{n}"})), 201)["id"] for n in range(3)]
    lora = host.home / "Lora" / "a1.safetensors"
    lora.write_bytes(b"")
    queue.store.claim(1.0)
    unknown = "00000000-0000-0000-0000-000000000099"
    assert client.delete(TRAININGS, json={"training_id_list": [*ids[:2], ids[1], unknown]}).status_code == 204
    assert [job.id for job in queue.jobs()] == [3, 1] and lora.exists()
    assert '"stop"' in queue.job_folder(1).control.read_text(encoding="utf-8")
    queue.store.change(1, ["running"], status="stopped")
    assert client.delete(TRAININGS, json={"training_id_list": ids}).status_code == 204
    assert queue.jobs() == []
    for wrong in (["id"], [], [3], "id", ids * 50):
        assert client.delete(TRAININGS, json={"training_id_list": wrong}).status_code in (204, 400)
    assert client.delete(TRAININGS, json={"training_id_list": ["id"]}).status_code == 400


def announced(files: int) -> dict[str, Any]:
    content = [{"filename": f"{n}.png", "name": f"{n}.png", "type": "image", "params": {}} for n in range(1, files + 1)]
    about = {"creator": "admin", "prefix": "10_technic", "params": {"description": "this is description"}}
    return {"dataset_name": "technic", "content": content, **about}


def test_a_dataset_is_announced_uploaded_enabled_and_trained(queue: Queue, host: FakeHost, tmp_path: Path) -> None:
    """An upload is sent as there: the bytes alone, to the address that was given, without any password."""
    app, users = FastAPI(), {"a": "b"}
    mount(app, queue, None, host, Access(users, None, False, False), tmp_path / "datasets")
    client, anybody = Client(app, auth=("a", "b")), Client(app)
    data = said(client.post(SETS, json=announced(25)), 201)
    assert data["datasetName"] == "technic" and data["s3PresignUrl"].keys() == {f"{n}.png" for n in range(1, 26)}
    picture = png()
    for name, url in data["s3PresignUrl"].items():
        parts = urlsplit(url)
        assert parts.netloc == "127.0.0.1:7860"
        assert anybody.put(parts.path, content=picture).status_code == 401
        assert anybody.put(f"{parts.path}?{parts.query}", content=picture).is_success
        assert (tmp_path / "datasets" / "technic" / "10_technic" / name).read_bytes() == picture
    assert said(client.get(f"{SETS}?dataset_status=Enabled"), 200)["datasets"] == []
    assert said(client.put(f"{SETS}/technic", json={"status": "Enabled"}), 200) == {
        "datasetName": "technic",
        "status": "Enabled",
    }
    (listed,) = said(client.get(f"{SETS}?dataset_status=Enabled"), 200)["datasets"]
    assert listed.keys() >= {"datasetName", "s3", "status", "timestamp", "description"}
    shown = said(client.get(f"{SETS}/technic"), 200)
    assert (shown["dataset_name"], shown["prefix"]) == ("technic", "10_technic")
    assert shown["description"] == "this is description"
    assert [item["name"] for item in shown["data"]] == [f"{n}.png" for n in range(1, 26)]
    item = shown["data"][0]
    assert item.keys() == {"key", "name", "type", "preview_url", "dataStatus", "original_file_name"}
    preview = urlsplit(item["preview_url"])
    assert anybody.get(f"{preview.path}?{preview.query}").content == picture
    body = training({"output_name": "technic"})
    body["params"]["training_params"]["dataset"] = "technic"
    said(client.post(TRAININGS, json=body), 201)
    assert queue.job(1).status == "queued"


def test_a_dataset_that_is_not_enabled_yet_can_be_announced_once_more(client: Client, host: FakeHost) -> None:
    said(client.post(SETS, json=announced(1)), 201)
    said(client.post(SETS, json=announced(2)), 201)
    said(client.put(f"{SETS}/technic", json={"status": "Enabled"}), 200)
    assert "technic already exists" in message(client.post(SETS, json=announced(3)), 400)
    assert "status" in message(client.put(f"{SETS}/technic", json={"status": "Done"}), 400)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_name": "../x"},
        {"dataset_name": ""},
        {"prefix": "technic"},
        {"prefix": "../10_x"},
        {"content": []},
        {"content": announced(501)["content"]},
        {"content": [{"filename": "../a.png", "name": "a"}]},
        {"content": [{"filename": "a.exe", "name": "a"}, {"name": "b.png"}, 7]},
    ],
)
def test_a_wrong_announcement_makes_nothing(client: Client, tmp_path: Path, change: dict[str, Any]) -> None:
    said(client.post(SETS, json={**announced(2), **change}), 400)
    assert not (tmp_path / "datasets").exists()


def test_a_dataset_is_cut_into_another_by_a_job(client: Client, queue: Queue, dataset: Path) -> None:
    crop, asked = f"{SETS}/zdm/crop", {"max_resolution": "512x768"}
    assert said(client.post(crop, json=asked), 202) == {"dataset_name": "zdm_512x768"}
    work = queue.work(1)
    assert work.prepare and not work.train
    assert (work.config.crop, work.config.crop_size, work.config.tagger) == ("centre", (512, 768), "none")
    assert (Path(work.prepare.folder), work.prepare.sources) == (dataset.parent / "zdm_512x768", (str(dataset),))
    states = {found["datasetName"]: found["status"] for found in said(client.get(SETS), 200)["datasets"]}
    assert states == {"zdm": "Enabled", "zdm_512x768": "Initialed"}
    queue.store.change(1, ["queued"], status="finished")
    assert said(client.get(f"{SETS}/zdm_512x768"), 200)["status"] == "Enabled"
    assert "zdm_512x768 already exists" in message(client.post(crop, json=asked), 400)
    for wrong in ("512", "0x512", "512x", "９x９", "99999x9", "500x501", "-1x5"):
        said(client.post(crop, json={"max_resolution": wrong}), 400)
    assert len(queue.jobs()) == 1
    assert message(client.post(f"{SETS}/other/crop", json=asked), 404) == "dataset other is not found"


def test_datasets_are_listed_page_by_page_and_deleted(client: Client, dataset: Path) -> None:
    for number in range(4):
        client.post(f"{V1}/datasets", json={"name": f"d{number}"})
    names = [found["datasetName"] for data in pages(client, SETS) for found in data["datasets"]]
    assert names == ["d0", "d1", "d2", "d3", "zdm"]
    assert client.delete(SETS, json={"dataset_name_list": ["d0", "d1", "d1", "none"]}).status_code == 204
    assert [found["datasetName"] for found in said(client.get(SETS), 200)["datasets"]] == ["d2", "d3", "zdm"]
    assert message(client.get(f"{SETS}/d0"), 404) == "dataset d0 is not found"


def test_a_dataset_of_one_name_in_japanese_has_a_page_too(client: Client, dataset: Path) -> None:
    for name in ("ずんだもん", "四国めたん"):
        client.post(f"{V1}/datasets", json={"name": name})
    key = said(client.get(f"{SETS}?limit=2"), 200)["last_evaluated_key"]
    rest = said(client.get(SETS, params={"exclusive_start_key": key}), 200)
    assert [found["datasetName"] for found in rest["datasets"]] == ["四国めたん"]


def test_a_damaged_job_does_not_hide_the_others(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    for name in ("a", "b"):
        client.post(f"{V1}/jobs", json={"config": config_of(output_name=name)})
    queue.job_folder(1).config.write_text("rank = [", encoding="utf-8")
    assert len(said(client.get(TRAININGS), 200)["trainings"]) == 2

"""Jobs by the API: what it answers is held against the queue itself."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lora_trainer.api import mount
from lora_trainer.config import from_dict, problems, schema
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.locks import Lock
from tests.api.conftest import OPEN, V1, Client, ConfigOf, FakeHost

JOBS = f"{V1}/jobs"


def running(queue: Queue) -> int:
    """The next job, as the supervisor would have it at work."""
    job = queue.store.claim(1.0)
    assert job
    return job.id


def test_a_job_is_queued_with_the_hosts_folders_and_can_be_asked_for_again(
    client: Client, queue: Queue, host: FakeHost, dataset: Path, config_of: ConfigOf
) -> None:
    answer = client.post(JOBS, json={"config": config_of(rank=8)})
    assert answer.status_code == 201
    assert answer.json() == asdict(queue.job(1)) == client.get(f"{JOBS}/1").json()
    config = queue.work(1).config
    assert (config.rank, Path(config.base_model)) == (8, host.home / "base.safetensors")
    assert (Path(config.subsets[0].folder), Path(config.output_folder)) == (dataset, host.home / "Lora")
    again = client.get(f"{JOBS}/1/config").json()
    assert from_dict(again["config"]) == config
    again["config"]["output_name"] = "zdm2"
    assert client.post(JOBS, json=again).status_code == 201


def test_a_path_is_as_good_as_a_name(client: Client, queue: Queue, dataset: Path, config_of: ConfigOf) -> None:
    named = config_of(base_model="base.safetensors", subsets=[{"folder": str(dataset / "10_zdm")}], output_folder="x")
    assert client.post(JOBS, json={"config": named}).status_code == 201
    config = queue.work(1).config
    assert (Path(config.base_model).name, Path(config.output_folder).name) == ("base.safetensors", "x")


def test_every_problem_is_told_at_once(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    wrong = config_of(rank=0, epochs=-1, optimizer="none")
    answer = client.post(JOBS, json={"config": wrong})
    assert answer.status_code == 422
    expected = {problem.setting for problem in problems(from_dict(wrong))}
    told = answer.json()["problems"]
    assert {problem["setting"] for problem in told} == expected == {"rank", "epochs", "optimizer"}
    assert all(problem["problem"] and problem["remedy"].endswith(".") for problem in told)
    checked = client.post(f"{V1}/config/check", json={"config": wrong})
    assert checked.status_code == 200 and checked.json()["problems"] == told
    assert queue.jobs() == []


def test_a_config_is_checked_without_becoming_a_job(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    answer = client.post(f"{V1}/config/check", json={"config": config_of(alpha=64.0, rank=4)}).json()
    assert answer["problems"] == [] and [notice["setting"] for notice in answer["notices"]] == ["alpha"]
    assert answer["estimate"]["seconds"] is None and answer["estimate"]["guess"]
    missing = client.post(f"{V1}/config/check", json={"config": config_of(base_model="nowhere")}).json()
    assert [problem["setting"] for problem in missing["problems"]] == ["base_model"]
    assert queue.jobs() == []


def test_the_schema_is_that_of_the_settings(client: Client) -> None:
    assert client.get(f"{V1}/config/schema").json() == schema()


def test_a_job_that_prepares_takes_a_datasets_name(client: Client, queue: Queue, dataset: Path, tmp_path: Path) -> None:
    config = {"dataset_name": "cut", "crop": "centre", "crop_size": [64, 64], "tagger": "none"}
    prepare = {"sources": [str(dataset)]}
    answer = client.post(JOBS, json={"config": config, "prepare": prepare, "train": False})
    assert answer.status_code == 201, answer.text
    work = queue.work(1)
    assert work.prepare and not work.train
    assert Path(work.prepare.folder) == tmp_path / "datasets" / "cut"
    assert client.get(f"{JOBS}/1/config").json()["train"] is False


@pytest.mark.parametrize("prepare", [{"folder": 3}, {"sources": "a"}, {"nothing": 1}, {"sources": [1]}, {"folder": ""}])
def test_a_wrong_preparation_is_refused(client: Client, queue: Queue, config_of: ConfigOf, prepare: dict) -> None:
    answer = client.post(JOBS, json={"config": config_of(), "prepare": prepare})
    assert answer.status_code == 422 and answer.json()["problems"][0]["setting"].startswith("prepare")
    assert queue.jobs() == []


def test_the_list_goes_on_where_it_ended(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    for number in range(7):
        client.post(JOBS, json={"config": config_of(output_name=f"zdm{number}"), "first": number == 6})
    assert queue.line()[0].name == "zdm6"
    seen, page = [], client.get(f"{JOBS}?limit=3").json()
    while page["jobs"]:
        seen += [job["name"] for job in page["jobs"]]
        page = client.get(f"{JOBS}?limit=3&before={page['next']}").json() if page["next"] else {"jobs": []}
    assert seen == [f"zdm{number}" for number in reversed(range(7))]
    queue.stop(3)
    assert [job["id"] for job in client.get(f"{JOBS}?status=stopped").json()["jobs"]] == [3]


WRONG_QUERIES = ("limit=x", "limit=-1", "limit=1e3", "limit=5000", "before=", "status=done", "limit=９")


@pytest.mark.parametrize("query", WRONG_QUERIES)
def test_a_wrong_query_is_told(client: Client, query: str) -> None:
    answer = client.get(f"{JOBS}?{query}")
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["setting"] == query.partition("=")[0]


def test_jobs_are_moved_copied_retried_and_deleted(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    for number in (1, 2, 3):
        client.post(JOBS, json={"config": config_of(output_name=f"zdm{number}")})
    assert client.post(f"{JOBS}/3/move", json={"where": "first"}).status_code == 200
    assert [job.id for job in queue.line()] == [3, 1, 2]
    assert client.post(f"{JOBS}/3/move", json={"where": "aside"}).status_code == 422
    copied = client.post(f"{JOBS}/1/copy")
    assert copied.status_code == 201 and copied.json()["name"] == "zdm1-v2" == queue.job(4).name
    assert client.post(f"{JOBS}/1/stop").json()["job"]["status"] == "stopped" == queue.job(1).status
    assert client.post(f"{JOBS}/1/retry", json={"fresh": False}).json()["status"] == "queued" == queue.job(1).status
    assert client.delete(f"{JOBS}/2").status_code == 204
    assert client.get(f"{JOBS}/2").status_code == 404
    assert [job.id for job in queue.line()] == [1, 3, 4]


def test_the_line_is_what_runs_and_then_what_waits(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    for name in "abc":
        client.post(JOBS, json={"config": config_of(output_name=name)})
    client.post(f"{JOBS}/3/move", json={"where": "first"})
    assert running(queue) == 3
    answer = client.get(f"{V1}/queue").json()
    assert [(job["name"], job["status"]) for job in answer["jobs"]] == [
        ("c", "running"),
        ("a", "queued"),
        ("b", "queued"),
    ]
    assert answer["jobs"][1] == client.get(f"{JOBS}/1").json() and answer["supervisor"] is None


def test_a_running_job_is_commanded(client: Client, queue: Queue, config_of: ConfigOf) -> None:
    client.post(JOBS, json={"config": config_of()})
    id = running(queue)
    sent = []
    for command, body in (("pause", None), ("resume", {}), ("save", None), ("sample", {}), ("stop", {"save": True})):
        answer = client.post(f"{JOBS}/{id}/{command}", **({"json": body} if body is not None else {}))
        assert answer.status_code == 202, command
        sent.append(answer.json()["command"])
    control = queue.job_folder(id).control.read_text(encoding="utf-8")
    assert len(set(sent)) == 5 and all(command in control for command in sent)
    assert [word in control for word in ('"pause"', '"resume"', '"save"', '"sample"', '"stop_and_save"')] == [True] * 5
    assert client.delete(f"{JOBS}/{id}").status_code == 409


@pytest.mark.parametrize("command", ["pause", "resume", "save", "sample", "retry"])
def test_what_a_jobs_state_does_not_allow_is_a_conflict(
    client: Client, queue: Queue, config_of: ConfigOf, command: str
) -> None:
    client.post(JOBS, json={"config": config_of()})
    answer = client.post(f"{JOBS}/1/{command}")
    assert answer.status_code == 409 and "Job 1 is queued" in answer.json()["detail"]
    assert queue.job(1).status == "queued"


@pytest.mark.parametrize("id", ["2", "0", "x", "-1", "1.0", "9" * 18, "9" * 40, "１", "%00"])
@pytest.mark.parametrize("path", ["", "/config", "/events", "/log", "/samples", "/samples/a.png", "/loras"])
def test_a_job_that_is_not_there_is_not_found(client: Client, config_of: ConfigOf, id: str, path: str) -> None:
    client.post(JOBS, json={"config": config_of()})
    assert client.get(f"{JOBS}/{id}{path}").status_code == 404
    assert client.post(f"{JOBS}/{id}/pause").status_code == 404
    assert client.delete(f"{JOBS}/{id}").status_code == 404


def test_what_a_job_made_is_seen_and_kept(client: Client, queue: Queue, host: FakeHost, config_of: ConfigOf) -> None:
    client.post(JOBS, json={"config": config_of()})
    folder = queue.job_folder(1)
    for made in (folder.samples / "zdm-1.png", folder.models / "zdm-000001.safetensors"):
        made.parent.mkdir()
        made.write_bytes(made.name.encode())
    folder.log.write_text("one\ntwo\nthree\n", encoding="utf-8")
    assert client.get(f"{JOBS}/1/samples").json() == {"samples": ["zdm-1.png"]}
    assert client.get(f"{JOBS}/1/samples/zdm-1.png").content == b"zdm-1.png"
    assert client.get(f"{JOBS}/1/loras").json() == {"loras": ["zdm-000001.safetensors"]}
    assert client.get(f"{JOBS}/1/loras/zdm-000001.safetensors").content == b"zdm-000001.safetensors"
    assert client.get(f"{JOBS}/1/log?lines=2").json() == {"lines": ["two", "three"]}
    kept = client.post(f"{JOBS}/1/keep", json={"file": "zdm-000001.safetensors", "name": "ずんだもん"})
    assert kept.status_code == 200
    assert (host.home / "Lora" / "ずんだもん.safetensors").read_bytes() == b"zdm-000001.safetensors"
    for wrong in ({"file": "../../config.toml"}, {"file": "zdm-000001.safetensors", "name": "../x"}, {"file": 1}, {}):
        assert client.post(f"{JOBS}/1/keep", json=wrong).status_code == 422, wrong


OTHER_FILES = ("..%2Fconfig.toml", "config.toml", "%2e%2e", "zdm-1.png%00", "%2Fetc%2Fpasswd")


@pytest.mark.parametrize("name", OTHER_FILES)
def test_no_other_file_is_shown(client: Client, queue: Queue, config_of: ConfigOf, name: str) -> None:
    client.post(JOBS, json={"config": config_of()})
    folder = queue.job_folder(1).samples
    folder.mkdir()
    (folder / "zdm-1.png").write_bytes(b"a preview")
    for place in ("samples", "loras"):
        assert client.get(f"{JOBS}/1/{place}/{name}").status_code == 404


def test_a_request_that_is_no_json_is_refused(client: Client, queue: Queue) -> None:
    as_form = client.post(JOBS, content=b"{}", headers={"Content-Type": "text/plain"})
    assert as_form.status_code == 415 and "application/json" in as_form.json()["detail"]
    large = client.post(JOBS, content=b'{"config": "' + b"x" * (1 << 20), headers={"Content-Type": "application/json"})
    assert large.status_code == 413
    assert client.post(f"{JOBS}/1/nothing").status_code == 404
    assert queue.jobs() == []


def test_a_body_that_says_no_length_is_not_read_beyond_the_limit(client: Client) -> None:
    async def endless():
        for _ in range(100):
            yield b" " * (1 << 16)
        raise AssertionError("it was read to its end")

    headers = {"Content-Type": "application/json"}
    assert client.post(JOBS, content=endless(), headers=headers).status_code == 413


def test_the_list_says_what_the_supervisor_is_at(client: Client, queue: Queue, host: FakeHost, tmp_path: Path) -> None:
    assert client.get(JOBS).json()["supervisor"] is None
    with Lock(queue.supervisor_lock).take():
        supervisor = Supervisor(queue, host)
        supervisor.start()
        mount(client.app, queue, supervisor, host, OPEN, tmp_path / "datasets")
        told = client.get(JOBS).json()["supervisor"]
        supervisor.close()
    assert told.keys() == {"current", "watching", "trouble"}
    assert told["current"] is None and told["watching"] == supervisor.watching != ""

"""The commands about jobs: on a queue in a folder of the test, with real workers where one has to run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lora_trainer.config import Config, load_toml
from lora_trainer.jobs.event_log import EventWriter, read_events
from lora_trainer.jobs.job import ACTIVE
from lora_trainer.jobs.queue import Queue
from lora_trainer.locks import is_taken
from lora_trainer.packages import environment_for_child
from tests.commands.conftest import Command, Said, contents, write_config

ConfigOf = Callable[..., Config]
PATIENCE = 120.0  # seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def queue(folder: Path) -> Queue:
    """What lies in the folder, as another process sees it."""
    return Queue(folder)


@pytest.fixture
def said(command: Command, folder: Path) -> Callable[..., Said]:
    """Runs `queue` or `jobs` with an action on the test's queue."""

    def run(name: str, *arguments: object) -> Said:
        return command(name, "--jobs", folder, *arguments)

    return run


@pytest.fixture
def add(said: Callable[..., Said], config_of: ConfigOf, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Adds a job with `queue add`; returns it."""

    def run(*arguments: object, **changes: Any) -> dict[str, Any]:
        added = said("queue", "add", write_config(config_of(**changes), tmp_path), "--json", *arguments)
        assert added.code == 0, added
        job: dict[str, Any] = json.loads(added.out[0])
        return job

    return run


def names(listed: Said) -> list[str]:
    return [job["name"] for job in json.loads(listed.out[0])]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def commands_to(queue: Queue, id: int) -> list[str]:
    lines = queue.job_folder(id).control.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["command"] for line in lines]


def test_jobs_wait_in_the_order_that_they_are_given(said: Callable[..., Said], add: Callable[..., Any]) -> None:
    assert said("queue").out == ["Nothing runs and nothing waits. `queue add` adds a job."]
    for name in ("one", "two", "three"):
        add(output_name=name)
    add("--first", output_name="zero")
    assert names(said("queue", "list", "--json")) == ["zero", "one", "two", "three"]
    assert said("queue", "move", 3, "first").out == ["Job 3, three, is moved."]
    said("queue", "move", 4, "down")
    assert names(said("queue", "--json")) == ["three", "one", "zero", "two"]
    assert names(said("jobs", "--limit", 2, "--json")) == ["zero", "three"]  # the newest first
    table = said("queue", "list").out
    assert table[0].split() == ["id", "status", "name", "added", "how", "far"]
    assert table[1].split()[:3] == ["3", "queued", "three"]


def test_a_job_holds_the_config_with_its_changes(
    said: Callable[..., Said], add: Callable[..., Any], queue: Queue, tmp_path: Path
) -> None:
    job = add("--set", "rank=3", "output_name=other", "--preset", "sd15/style")
    assert (job["id"], job["name"], job["status"], job["kind"]) == (1, "other", "queued", "train")
    assert said("jobs", "config", 1, "-o", tmp_path / "again.toml").code == 0
    again = load_toml(tmp_path / "again.toml")
    assert again == queue.work(1).config and again.rank == 3
    assert load_toml("\n".join(said("jobs", "config", 1).out)) == again
    refused = said("jobs", "config", 1, "-o", tmp_path / "again.toml")
    assert refused.code == 2 and "--force" in refused.errors[0]


def test_preparing_comes_before_training_or_alone(add: Callable[..., Any], queue: Queue, tmp_path: Path) -> None:
    dataset, pictures = tmp_path / "sets" / "blob", tmp_path / "set" / "1_blob"
    asked = ("--prepare", dataset, "--import", pictures, "--remove", "left, right")
    add(*asked, "--set", "crop=centre", "tagger=none")
    work = queue.work(1)
    assert work.train and work.prepare and work.config.crop == "centre"
    assert (work.prepare.folder, work.prepare.sources) == (str(dataset), (str(pictures),))
    assert work.prepare.unwanted == ("left", "right")
    assert add(*asked, "--prepare-only", "--set", "crop=centre", "tagger=none")["kind"] == "prepare"


def test_what_belongs_to_preparing_needs_a_dataset(
    said: Callable[..., Said], config_of: ConfigOf, tmp_path: Path, queue: Queue
) -> None:
    refused = said("queue", "add", write_config(config_of(), tmp_path), "--prepare-only")
    assert refused.code == 2 and "--prepare" in refused.errors[0] and not queue.jobs()


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_queued(
    said: Callable[..., Said], config_of: ConfigOf, tmp_path: Path, queue: Queue
) -> None:
    config = config_of(base_model=str(tmp_path / "gone.safetensors"), rank=0, batch_size=0)
    refused = said("queue", "add", write_config(config, tmp_path))
    assert refused.code == 2 and not refused.out and not queue.jobs()
    assert {line.split(" = ")[0] for line in refused.errors} >= {"base_model", "rank", "batch_size"}


def test_a_job_is_copied_stopped_queued_again_and_deleted(said: Callable[..., Said], add: Callable[..., Any]) -> None:
    add(output_name="zdm")
    assert said("queue", "copy", 1).out == ["Job 2, zdm-v2, is queued, a copy of job 1."]
    assert said("queue", "stop", 1).out == ["Job 1, zdm, is stopped."]
    assert names(said("queue", "--json")) == ["zdm-v2"]
    assert names(said("jobs", "--status", "stopped", "--json")) == ["zdm"]
    assert said("queue", "retry", 1).code == 0
    assert names(said("queue", "--json")) == ["zdm", "zdm-v2"]  # it goes next
    assert said("queue", "delete", 1).out == ["Job 1, zdm, is deleted; the LoRAs that it published stay."]
    assert said("jobs", "show", 1).code == 2


@pytest.mark.parametrize("action", ["pause", "resume", "save", "sample", "stop"])
def test_a_command_without_an_id_goes_to_the_job_that_runs(
    action: str, said: Callable[..., Said], add: Callable[..., Any], queue: Queue
) -> None:
    add(output_name="one")
    add(output_name="two")
    none = said("queue", action)
    assert none.code == 2 and "none is running" in none.errors[0]
    queue.store.claim(time.time())
    assert said("queue", action).out[0].startswith("Job 1, one, ")
    assert commands_to(queue, 1) == [action]


def test_stop_and_save(said: Callable[..., Said], add: Callable[..., Any], queue: Queue) -> None:
    add()
    queue.store.claim(time.time())
    assert said("queue", "stop", "--save").code == 0
    assert commands_to(queue, 1) == ["stop_and_save"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["queue", "show", 77], "There is no job 77."),
        (["jobs", "log", 77], "There is no job 77."),
        (["jobs", "events", 77], "There is no job 77."),
        (["queue", "pause", 1], "Job 1 is queued"),
        (["queue", "resume", 1], "Job 1 is queued"),
        (["queue", "retry", 1], "Job 1 is queued"),
        (["jobs", "keep", 1, "blob.safetensors"], "is no LoRA of job 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    words: list[Any], sentence: str, said: Callable[..., Said], add: Callable[..., Any], folder: Path
) -> None:
    add()
    before = {name for name in contents(folder) if not name.startswith("jobs.sqlite")}
    refused = said(*words)
    assert (refused.code, refused.out) == (2, []) and sentence in refused.errors[0], refused
    assert {name for name in contents(folder) if not name.startswith("jobs.sqlite")} == before


def test_events_and_log_are_read_from_the_jobs_folder(
    said: Callable[..., Said], add: Callable[..., Any], queue: Queue
) -> None:
    add()
    with EventWriter(queue.job_folder(1).events) as report:
        for step in range(3):
            report("progress", step=step)
    lines = [json.loads(line) for line in said("jobs", "events", 1).out]
    assert [(line["event"], line["step"]) for line in lines] == [("progress", step) for step in range(3)]
    rest = said("jobs", "events", 1, "--offset", lines[0]["next"]).out
    assert [json.loads(line) for line in rest] == lines[1:]
    with pytest.raises(SystemExit) as ended:
        said("jobs", "events", 1, "--offset", "-7")
    assert ended.value.code == 2
    queue.job_folder(1).log.write_text("a\nb\nc\n", encoding="utf-8")
    assert said("jobs", "log", 1, "--lines", 2).out == ["b", "c"]


def test_the_queue_is_run_until_nothing_is_left(
    said: Callable[..., Said], add: Callable[..., Any], base: Path, queue: Queue, tmp_path: Path
) -> None:
    """One job finishes, one fails: what it is told of them, and an exit code of 1."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(base.read_bytes())
    add(output_name="good", epochs=1)
    add(output_name="bad", base_model=str(other))
    other.unlink()
    run = said("queue", "start", "--json")
    events = [json.loads(line) for line in run.out]
    assert run.code == 1, run
    ended = {event["job"]: event for event in events if event["event"] == "ended"}
    assert {job: event["status"] for job, event in ended.items()} == {1: "finished", 2: "failed"}
    assert "other.safetensors" in ended[2]["cause"] and ended[2]["remedy"]
    assert [event["step"] for event in events if event["event"] == "progress"] == [1, 2]
    shown = json.loads(said("queue", "show", 1, "--json").out[0])
    assert shown["lora"] == str(tmp_path / "out" / "good.safetensors") and Path(shown["lora"]).is_file()
    assert said("jobs", "keep", 1, "good.safetensors", "--name", "kept", "--weight", 0.7).code == 0
    kept, first = (load_file(tmp_path / "out" / f"{name}.safetensors") for name in ("kept", "good"))
    assert kept.keys() == first.keys() and all(np.array_equal(kept[key], first[key]) for key in first)
    assert json.loads((tmp_path / "out" / "kept.json").read_text(encoding="utf-8"))["preferred weight"] == 0.7
    failed = said("jobs", "show", 2).out
    assert any("other.safetensors" in line for line in failed) and "The log ends with:" in failed


def test_a_damaged_table_is_told(said: Callable[..., Said], add: Callable[..., Any], tmp_path: Path) -> None:
    add()
    copied = tmp_path / "copied"  # which nobody has open
    shutil.copytree(tmp_path / "jobs" / "1", copied / "1")
    (copied / "jobs.sqlite").write_bytes(b"damaged" * 1000)
    told = said("queue", "--jobs", copied)
    assert told.code == 0 and any("blob" in line for line in told.out)
    assert any("jobs.sqlite was damaged" in line for line in told.errors)


def test_who_has_read_enough_is_no_error(add: Callable[..., Any], queue: Queue, folder: Path) -> None:
    add()
    with EventWriter(queue.job_folder(1).events) as report:
        for step in range(9000):
            report("progress", step=step)
    command = [sys.executable, "-m", "lora_trainer", "jobs", "--jobs", str(folder), "events", "1"]
    environment = environment_for_child()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stderr
        assert json.loads(child.stdout.readline())["step"] == 0
        child.stdout.close()
        assert child.stderr.read() == b""


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lora_trainer", "queue", "start", "--jobs", str(folder), "--json"],
        env={**environment_for_child(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_leaves_the_worker_and_the_next_start_watches_it(
    said: Callable[..., Said], add: Callable[..., Any], queue: Queue, folder: Path
) -> None:
    add(epochs=10_000, keep_last=1, save_every_epochs=1000)
    first = start(folder)
    wait_for(lambda: queue.job(1).step)
    pid = queue.job(1).pid
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0 and "Job 1 goes on by itself" in errors, errors
    assert is_taken(queue.job_folder(1).lock) and queue.job(1).status in ACTIVE
    second = start(folder)
    step = queue.job(1).step
    wait_for(lambda: queue.job(1).step > step)
    assert queue.job(1).pid == pid
    assert said("queue", "stop", "--save").code == 0
    out, _ = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0 and json.loads(out.splitlines()[-1])["status"] == "stopped"
    told, _ = read_events(queue.job_folder(1).events, most=10**9)
    assert told[-1].kind == "stopped" and [path.name for path in queue.loras(1)]

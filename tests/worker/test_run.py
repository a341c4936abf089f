"""A job from its folder to its LoRA: workers as processes that are paused and killed, and what keeps one from it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.jobs.controls import send
from lora_trainer.jobs.event_log import Event, follow
from lora_trainer.jobs.processes import ANOTHER_HAS_IT
from lora_trainer.jobs.work import Prepare
from lora_trainer.locks import is_taken
from lora_trainer.packages import PackageProblem
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.loop import train
from lora_trainer.training.steps import Steps
from lora_trainer.worker import run
from lora_trainer.worker.run import work
from tests.worker.conftest import Job
from tests.worker.test_logs import curve

ConfigOf = Callable[..., Config]
JobOf = Callable[..., Job]
PREVIEW = {"preview_size": (64, 64), "preview_steps": 1}


def wait_for(job: Job, process: Any, kind: str, **facts: Any) -> Event:
    """The first such event, which the process tells before it ends."""
    for event in follow(job.folder.events, 0, lambda: process.poll() is not None, poll=0.01):
        if event.kind == kind and facts.items() <= event.facts.items():
            return event
    raise AssertionError(f"no {kind} before the worker ended: {process.stdout.read()}")


def same_weights(left: Path, right: Path) -> bool:
    """To the last bit; a file's metadata has times in it."""
    first, second = load_file(left), load_file(right)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def whole(config_of: ConfigOf, tmp_path: Path) -> Path:
    """The LoRA of the same config, trained by itself."""
    lora = train(config_of(output_folder=str(tmp_path / "whole"))).lora
    assert lora is not None
    return lora


def test_a_worker_obeys_and_is_alone_and_its_lora_is_that_of_the_command(
    job_of: JobOf, tmp_path: Path, whole: Path, here: None
) -> None:
    job = job_of(**PREVIEW)
    send(job.folder, "pause")
    with job.start() as process:
        wait_for(job, process, "paused")
        assert is_taken(job.folder.lock) and work(job.folder.path) == ANOTHER_HAS_IT
        told = json.loads(job.folder.worker.read_text(encoding="utf-8"))
        assert told["pid"] == process.pid and told["attempt"] == 1
        commands = [send(job.folder, command) for command in ("save", "sample", "resume")]
        output, _ = process.communicate()
    assert process.returncode == 0, output
    assert not is_taken(job.folder.lock)
    heeded = [event.facts["id"] for event in job.events() if event.kind == "heeded"]
    assert heeded[1:] == commands
    kinds = job.kinds("started", "paused", "resumed", "sample", "measured", "finished", "failed")
    assert kinds == ["started", "paused", "resumed", "sample", "measured", "finished"]
    lora = tmp_path / "out" / "blob.safetensors"
    assert job.last("finished")["lora"] == str(lora) and job.kinds()[-1] == "finished"
    beside = {path.name for path in lora.parent.iterdir()}  # the other LoRAs wait in the job's folder
    assert beside == {"blob.safetensors", "blob.json", "blob.png"}
    assert (job.folder.models / "blob-000001.safetensors").is_file()
    assert (job.folder.models / lora.name).samefile(lora)
    assert same_weights(lora, whole)
    (sample,) = job.folder.samples.iterdir()
    assert sample.read_bytes() == lora.with_suffix(".png").read_bytes()
    assert "finished: lora" in output and "progress" not in output


def test_a_killed_worker_is_followed_by_one_that_goes_on(job_of: JobOf, tmp_path: Path, whole: Path) -> None:
    job = job_of()
    with job.start() as process:
        wait_for(job, process, "progress", step=3)
        process.kill()
    assert not is_taken(job.folder.lock)
    assert job.done() == 0, job.output
    steps = [event.facts["step"] for event in job.events() if event.kind == "progress"]
    assert steps[-4:] == [3, 4, 5, 6]
    assert same_weights(tmp_path / "out" / "blob.safetensors", whole)
    assert json.loads(job.folder.worker.read_text(encoding="utf-8"))["attempt"] == 2
    losses = {event.facts["step"]: event.facts["loss"] for event in job.events() if event.kind == "progress"}
    assert curve(job.folder.tensorboard, "loss") == pytest.approx(losses)


def test_killed_before_it_published_it_only_publishes(job_of: JobOf, tmp_path: Path, here: None) -> None:
    """Twice: under its name, and under a number where another file has come to have that name."""
    job, lora = job_of(max_steps=1), tmp_path / "out" / "blob.safetensors"
    assert work(job.folder.path) == 0
    content = lora.read_bytes()
    lora.unlink()
    again(job)
    assert lora.read_bytes() == content
    lora.unlink()
    lora.write_bytes(b"another's")
    again(job)
    assert lora.read_bytes() == b"another's"
    assert lora.with_name("blob-v2.safetensors").read_bytes() == content
    assert job.kinds("started", "finished", "warning")[-3:] == ["finished", "warning", "finished"]
    assert job.kinds("started") == ["started"]
    assert job.last("finished")["lora"] == str(lora.with_name("blob-v2.safetensors"))


def again(job: Job) -> None:
    """Another worker in the same process."""
    run._held.pop().release()
    assert work(job.folder.path) == 0


def test_a_lora_that_cannot_be_published_is_when_the_job_is_resumed(
    job_of: JobOf, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = job_of(max_steps=1)
    with monkeypatch.context() as patch, pytest.raises(TrainingFailed, match="can't be put into"):
        patch.setattr(run, "publish", full)
        work(job.folder.path)
    assert job.last("failed")["reason"] == "disk_full" and job.kinds()[-1] == "failed"
    again(job)
    assert job.kinds("started", "failed", "finished") == ["started", "failed", "finished"]
    assert (tmp_path / "out" / "blob.safetensors").is_file()


def test_every_failure_is_told(job_of: JobOf, here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = job_of(number=1, base_model=str(tmp_path / "gone.safetensors"), rank=0)
    with pytest.raises(BadInput):
        work(missing.folder.path)
    told = missing.last("failed")
    assert told["reason"] == "base_missing" and "gone.safetensors" in told["cause"]
    assert {problem["setting"] for problem in told["problems"]} == {"base_model", "rank"}

    monkeypatch.setattr(Steps, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    diverging = job_of(number=2)
    with pytest.raises(TrainingFailed):
        work(diverging.folder.path)
    assert diverging.last("failed")["reason"] == "nan" and "step 1" in diverging.last("failed")["cause"]

    def not_installed() -> None:
        raise PackageProblem("The training packages are not installed in a folder. Run setup.")

    monkeypatch.setattr(run, "activate", not_installed)
    bare = job_of(number=3)
    with pytest.raises(PackageProblem):
        work(bare.folder.path)
    assert bare.last("failed")["reason"] == "missing_package"

    damaged = job_of(number=4)
    damaged.folder.work.write_text("{", encoding="utf-8")
    with pytest.raises(BadInput):
        work(damaged.folder.path)
    assert damaged.last("failed")["reason"] == "bad_input"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such folder"):
        work(tmp_path / "12")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_worker_had_not_written_to_its_end_is_removed(job_of: JobOf, here: None) -> None:
    job = job_of(rank=0)
    cut_off = job.folder.models / ".blob.safetensors.99.tmp"
    cut_off.parent.mkdir()
    for path in (cut_off, job.folder.path / ".state.bin.99.tmp", job.folder.models / "blob-000001.safetensors"):
        path.write_bytes(b"begun")
    with pytest.raises(BadInput):
        work(job.folder.path)
    assert [path.name for path in job.folder.models.iterdir()] == ["blob-000001.safetensors"]
    assert not list(job.folder.path.glob(".*"))


def test_exit_codes(job_of: JobOf) -> None:
    """Bad input is 2, as with every command, and its sentence is in the log."""
    job = job_of(rank=0)
    assert job.done() == 2
    assert "rank" in job.output and "Traceback" not in job.output


def test_a_dataset_is_prepared_and_trained_on(job_of: JobOf, pictures: Path, tmp_path: Path, here: None) -> None:
    """Stopped by a pause's end while it prepares; the next worker prepares on, and then trains."""
    dataset = tmp_path / "datasets" / "blob"
    prepare = Prepare(str(dataset), sources=(str(pictures),))
    subsets = (Subset(folder=str(dataset / "1_blob")),)
    job = job_of(prepare, subsets=subsets, max_steps=1, crop="centre", crop_size=(64, 64), tagger="none")
    send(job.folder, "stop")
    assert work(job.folder.path) == 0
    assert job.kinds("heeded", "prepared", "started", "stopped") == ["heeded", "stopped"]
    job.folder.control.write_bytes(b"")
    again(job)
    assert job.kinds("prepared", "started", "finished") == ["prepared", "started", "finished"]
    assert job.last("prepared")["pictures"] == 4
    assert (tmp_path / "out" / "blob.safetensors").is_file()


def test_a_job_that_only_prepares(job_of: JobOf, pictures: Path, tmp_path: Path, here: None) -> None:
    dataset = tmp_path / "datasets" / "blob"
    job = job_of(Prepare(str(dataset), sources=(str(pictures),)), train=False, crop="none", tagger="none")
    assert work(job.folder.path) == 0
    assert job.kinds()[-1] == "prepared" and not job.folder.run.exists()
    assert len(list((dataset / "1_blob").glob("*.png"))) == 4

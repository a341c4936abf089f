"""A kill at any moment of what is done to the queue: it is opened as the disk was at every step."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lora_trainer import packages
from lora_trainer.config import dump_toml
from lora_trainer.jobs.job import STATUSES, Job
from lora_trainer.jobs.queue import Queue
from tests.dataset.store.conftest import copied_at_each_step, hook, step
from tests.jobs.conftest import WorkOf

__all__ = ["hook"]


@pytest.fixture(autouse=True)
def statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of SQL is a step, too."""

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*arguments, **options)
        connection.set_trace_callback(step)
        return connection

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)


Killed = Callable[[Callable[[], object]], list[Queue]]


@pytest.fixture
def killed(queue: Queue, tmp_path: Path) -> Iterator[Killed]:
    """The queues that kills at each step of something would leave, from the first step to the last."""
    opened: list[Queue] = []

    def watch(act: Callable[[], object]) -> list[Queue]:
        with copied_at_each_step(queue.folder, tmp_path / "copies") as made:
            act()
        opened.extend(map(Queue, made))
        assert opened
        return opened

    yield watch
    for each in opened:
        each.close()


@contextmanager
def whole(queue: Queue) -> Iterator[list[Job]]:
    """The jobs of a queue, each of which has its work."""
    assert queue.notices == []
    jobs = queue.jobs()
    for job in jobs:
        assert queue.work(job.id).name == job.name
    yield jobs


def test_adding(queue: Queue, work_of: WorkOf, killed: Killed) -> None:
    queue.add(work_of(output_name="first"))
    counts = []
    for left in killed(lambda: queue.add(work_of())):
        with whole(left) as jobs:
            counts.append(len(jobs))
        again = left.add(work_of(output_name="again"))
        assert left.work(again.id).name == "again" and again.id > len(jobs)
    assert counts == sorted(counts) and set(counts) <= {1, 2} and counts[0] == 1
    assert len(queue.jobs()) == 2


def test_deleting(queue: Queue, work_of: WorkOf, killed: Killed) -> None:
    for name in ("first", "second"):
        job = queue.add(work_of(output_name=name))
    folder = queue.job_folder(job.id)
    folder.models.mkdir()
    (folder.models / "second.safetensors").write_bytes(b"weights")
    counts = []
    for left in killed(lambda: queue.delete(job.id)):
        with whole(left) as jobs:
            counts.append(len(jobs))
        assert left.add(work_of(output_name="again")).id == 3
    assert counts == sorted(counts, reverse=True) and counts[0] == 2 and counts[-1] == 1


def test_beginning_anew(queue: Queue, work_of: WorkOf, killed: Killed) -> None:
    job = queue.add(work_of())
    queue.store.change(job.id, STATUSES, status="failed")
    folder = queue.job_folder(job.id)
    for path in (folder.models / "zdm.safetensors", folder.samples / "a.png", folder.run, folder.state):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"made")
    waiting = []
    for left in killed(lambda: queue.retry(job.id)):
        with whole(left) as (found,):
            waiting.append(found.status)
        there = left.job_folder(job.id)
        assert len(list(there.path.rglob("zdm.safetensors"))) == len(list(there.path.rglob("a.png"))) == 1
        if found.status == "failed":
            left.retry(job.id)
        assert not there.state.exists() and not there.models.exists() and not there.run.exists()
    assert set(waiting[:1]) == {"failed"} and sorted(waiting) == waiting


def test_stopping_in_line(queue: Queue, work_of: WorkOf, killed: Killed) -> None:
    job = queue.add(work_of())
    found = []
    for left in killed(lambda: queue.stop(job.id)):
        with whole(left) as (now,):
            found.append(now.status)
    assert found[0] == "queued" and set(found) <= {"queued", "stopped"}
    assert queue.job(job.id).status == "stopped"


ADD = """
import sys
from dataclasses import replace
from pathlib import Path
from lora_trainer.config import load_toml
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work
queue, config = Queue(Path(sys.argv[1])), load_toml(Path(sys.argv[2]))
while True:
    print(queue.add(Work(config)).id, flush=True)
"""


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_process_that_adds_is_killed(queue: Queue, work_of: WorkOf, tmp_path: Path, count: int) -> None:
    """For real, somewhere in the adding that follows so many: what was told to be added is there."""
    config = tmp_path / "config.toml"
    config.write_text(dump_toml(work_of(overwrite="number").config), encoding="utf-8")
    command = [sys.executable, "-c", ADD, str(queue.folder), str(config)]
    with subprocess.Popen(command, env=packages.environment_for_child(), stdout=subprocess.PIPE) as process:
        assert process.stdout
        added = [int(process.stdout.readline()) for _ in range(count)]
        process.kill()
        added += map(int, process.stdout.read().split())
    with whole(queue) as jobs:
        ids = sorted(job.id for job in jobs)
    assert ids[: len(added)] == added and len(ids) <= len(added) + 1
    assert queue.copy(1).id > len(added)
    assert all(job.status == "queued" for job in jobs)

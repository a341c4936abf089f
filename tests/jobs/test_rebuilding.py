"""A queue whose database is lost, as its jobs' folders tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.jobs.event_log import EventWriter
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.queue import Queue
from lora_trainer.locks import Lock
from tests.jobs.conftest import WorkOf


@pytest.fixture
def folder(queue: Queue, work_of: WorkOf) -> JobFolder:
    """That of the only job."""
    return queue.job_folder(queue.add(work_of(epochs=3)).id)


@pytest.fixture
def rebuilt(queue: Queue) -> Iterator[list[Queue]]:
    again: list[Queue] = []
    yield again
    for queue in again:
        queue.close()


def rebuild(queue: Queue, rebuilt: list[Queue]) -> Queue:
    """The queue after its database went away."""
    queue.close()
    for path in queue.folder.glob("jobs.sqlite*"):
        path.unlink()
    rebuilt.append(Queue(queue.folder))
    assert rebuilt[-1].notices == []
    return rebuilt[-1]


def told(folder: JobFolder, *events: tuple[str, dict[str, Any]]) -> None:
    with EventWriter(folder.events) as report:
        for kind, facts in events:
            report(kind, **facts)


STARTED = ("started", {"step": 0, "steps": 30, "epochs": 3})
PROGRESS = ("progress", {"step": 12, "steps": 30, "epoch": 2, "epochs": 3, "loss": 0.3, "average": 0.25})


def test_what_waits_is_in_the_order_it_was_added_in(queue: Queue, work_of: WorkOf, rebuilt: list[Queue]) -> None:
    for name in "abc":
        queue.add(work_of(output_name=name))
    before = queue.line()
    again = rebuild(queue, rebuilt)
    assert [replace(job, position=0) for job in again.line()] == [replace(job, position=0) for job in before]
    assert again.add(work_of(output_name="d"), first=True).id == 4
    assert [job.name for job in again.line()] == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("events", "status", "facts"),
    [
        ([], "queued", {"step": 0, "attempts": 0, "started_at": None}),
        ([STARTED, PROGRESS], "interrupted", {"step": 12, "steps": 30, "epoch": 2, "loss": 0.25, "attempts": 1}),
        ([STARTED, PROGRESS, STARTED, ("stopped", {"step": 13, "steps": 30})], "stopped", {"step": 13, "attempts": 2}),
        ([STARTED, ("finished", {"lora": "a.safetensors", "loss": 0.2})], "finished", {"lora": "a.safetensors"}),
        (
            [STARTED, ("failed", {"reason": "nan", "cause": "NaN.", "remedy": "Lower it."})],
            "failed",
            {"reason": "nan", "cause": "NaN.", "remedy": "Lower it."},
        ),
        ([("prepared", {})], "interrupted", {}),
        ([STARTED, ("paused", {"freed": 5})], "interrupted", {}),
    ],
)
def test_how_a_job_ended_is_what_it_told_last(
    queue: Queue, folder: JobFolder, rebuilt: list[Queue], events: list[Any], status: str, facts: dict[str, Any]
) -> None:
    before = queue.job(folder.id)
    told(folder, *events)
    job = rebuild(queue, rebuilt).job(folder.id)
    assert job.status == status
    assert {name: getattr(job, name) for name in facts} == facts
    kept = ("id", "kind", "name", "base", "output_folder", "created_at")
    assert [getattr(job, name) for name in kept] == [getattr(before, name) for name in kept]
    assert job.seen == (folder.events.stat().st_size if events else 0)
    assert bool(job.ended_at) == (status != "queued")


def test_a_worker_that_told_nothing_was_interrupted(queue: Queue, folder: JobFolder, rebuilt: list[Queue]) -> None:
    folder.worker.write_text("{}", encoding="utf-8")
    job = rebuild(queue, rebuilt).job(folder.id)
    assert job.status == "interrupted" and job.cause and job.remedy


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "running"),
        ([STARTED, PROGRESS], "running"),
        ([STARTED, ("paused", {"freed": 5})], "paused"),
        ([STARTED, ("paused", {"freed": 5}), ("resumed", {})], "running"),
    ],
)
def test_a_worker_that_lives_keeps_its_job(
    queue: Queue, folder: JobFolder, rebuilt: list[Queue], events: list[Any], status: str
) -> None:
    told(folder, *events)
    with Lock(folder.lock):
        again = rebuild(queue, rebuilt)
    assert again.job(folder.id).status == status
    assert again.store.claim(1.0) is None


def test_a_job_stopped_in_line_does_not_wait_again(queue: Queue, folder: JobFolder, rebuilt: list[Queue]) -> None:
    queue.stop(folder.id)
    assert rebuild(queue, rebuilt).job(folder.id).status == "stopped"


def test_a_job_that_only_prepared_has_finished(
    queue: Queue, work_of: WorkOf, tmp_path: Path, rebuilt: list[Queue]
) -> None:
    from lora_trainer.jobs.work import Prepare

    job = queue.add(work_of(Prepare(str(tmp_path)), train=False))
    told(queue.job_folder(job.id), ("prepared", {"pictures": 3}))
    assert rebuild(queue, rebuilt).job(job.id).status == "finished"


def test_what_is_no_job_is_passed_over_and_its_number_with_it(
    queue: Queue, folder: JobFolder, work_of: WorkOf, rebuilt: list[Queue]
) -> None:
    """Half a folder, as a deletion leaves it where a file can't be removed, and a damaged one."""
    (queue.folder / "7").mkdir()
    queue.add(work_of(output_name="damaged"))
    queue.job_folder(8).config.write_text("rank = ", encoding="utf-8")
    again = rebuild(queue, rebuilt)
    assert [job.id for job in again.jobs()] == [folder.id]
    assert again.add(work_of(output_name="damaged")).id == 9
    assert not list((queue.folder / "7").iterdir())


def test_of_two_that_wait_under_one_name_the_second_is_stopped(
    queue: Queue, folder: JobFolder, work_of: WorkOf, rebuilt: list[Queue]
) -> None:
    """As an adding that was killed, and then done again, leaves them."""
    queue.job_folder(2).write(work_of(), 5.0)
    again = rebuild(queue, rebuilt)
    assert [job.status for job in again.jobs()] == ["stopped", "queued"]
    assert again.jobs("stopped")[0].cause == "Another job of this name waits."


def test_a_thousand_events_are_no_end(queue: Queue, folder: JobFolder, rebuilt: list[Queue]) -> None:
    steps = [("progress", {**PROGRESS[1], "step": step}) for step in range(2500)]
    told(folder, STARTED, *steps, ("finished", {"lora": "a"}))
    job: Job = rebuild(queue, rebuilt).job(folder.id)
    assert (job.status, job.step, job.seen) == ("finished", 2499, folder.events.stat().st_size)

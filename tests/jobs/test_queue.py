"""The queue, as the tab, the API and the command line use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import BadInput
from lora_trainer.jobs.controls import FileControl
from lora_trainer.jobs.event_log import read_events
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.job import ACTIVE, RESUMABLE, STATUSES, Job
from lora_trainer.jobs.queue import NoSuchJob, Queue, QueueFailed, WrongState
from lora_trainer.jobs.stops import Wishes
from lora_trainer.jobs.work import Prepare, Work
from lora_trainer.locks import Lock
from tests.jobs.conftest import WorkOf

METHODS: dict[str, Callable[[Queue, int], Any]] = {
    "job": Queue.job,
    "work": Queue.work,
    "loras": Queue.loras,
    "samples": Queue.samples,
    "log_tail": Queue.log_tail,
    "copy": Queue.copy,
    "delete": Queue.delete,
    "pause": Queue.pause,
    "resume": Queue.resume,
    "stop": Queue.stop,
    "save": Queue.save,
    "sample": Queue.sample,
    "retry": Queue.retry,
    "move": lambda queue, id: queue.move(id, "up"),
    "keep": lambda queue, id: queue.keep(id, "zdm.safetensors"),
}


def put(queue: Queue, work_of: WorkOf, status: str, name: str = "zdm") -> Job:
    """A job that has come to be in that state."""
    job = queue.add(work_of(output_name=name))
    if status != "queued":
        assert queue.store.change(job.id, ("queued",), status=status, ended_at=None if status in ACTIVE else 2.0)
    return queue.job(job.id)


def names(jobs: list[Job]) -> list[str]:
    return [job.name for job in jobs]


def wishes(queue: Queue, id: int) -> Wishes:
    """What the job's worker reads."""
    return FileControl(queue.job_folder(id), silent).wishes()


# ---- adding


def test_a_job_is_added_with_its_work(queue: Queue, work_of: WorkOf, tmp_path: Path) -> None:
    job = queue.add(work_of(comment="ずんだ"))
    assert (job.id, job.kind, job.name, job.base, job.status) == (1, "train", "zdm", "base.safetensors", "queued")
    assert job.output_folder == str(tmp_path / "Lora")
    assert job == queue.job(1) == queue.jobs()[0] == queue.line()[0]
    assert queue.work(1) == work_of(comment="ずんだ")
    assert queue.job_folder(1).created_at() == job.created_at
    assert not (tmp_path / "Lora").exists()


def test_what_stands_against_it_is_told_at_once_and_nothing_is_left(queue: Queue, work_of: WorkOf) -> None:
    queue.add(work_of())
    before = sorted(queue.folder.iterdir())
    work = work_of(rank=0, base_model="gone")
    with pytest.raises(BadInput) as caught:
        queue.add(work)
    assert {problem.setting for problem in caught.value.problems} == {"rank", "base_model", "output_name"}
    assert list(caught.value.problems) == queue.check(work)
    assert (len(queue.jobs()), sorted(queue.folder.iterdir())) == (1, before)


@pytest.mark.parametrize("status", STATUSES)
def test_the_name_of_an_unfinished_job_is_taken(queue: Queue, work_of: WorkOf, status: str) -> None:
    put(queue, work_of, status)
    if status in ("queued", *ACTIVE):
        with pytest.raises(BadInput, match=rf"output_name.*job 1, which is {status}, has this name.*overwrite"):
            queue.add(work_of(output_name="ZDM"))
        assert queue.add(work_of(output_name="ZDM", overwrite="number")).name == "ZDM-v2"
    else:
        assert queue.add(work_of()).name == "zdm"


def test_the_name_of_a_lora_is_taken(queue: Queue, work_of: WorkOf, tmp_path: Path) -> None:
    (tmp_path / "Lora").mkdir()
    for name in ("zdm", "zdm-v2", "zdm-v4"):
        (tmp_path / "Lora" / f"{name}.safetensors").write_bytes(b"mine")
    with pytest.raises(BadInput, match=r"zdm\.safetensors exists already in Lora"):
        queue.add(work_of())
    added = [queue.add(work_of(overwrite="number")) for _ in range(2)]
    assert names(added) == ["zdm-v3", "zdm-v5"]
    assert [queue.work(job.id).config.output_name for job in added] == names(added)
    assert queue.add(work_of(output_name="zdm-v4", overwrite="number")).name == "zdm-v6"
    assert queue.add(work_of(output_folder=str(tmp_path / "other"))).name == "zdm"


def test_the_datasets_name_is_the_loras(queue: Queue, work_of: WorkOf) -> None:
    job = queue.add(work_of(output_name=None, dataset_name="set"))
    assert (job.name, queue.work(job.id).config.output_name) == ("set", "set")


def test_adding_at_once_gives_each_a_name_and_a_number(queue: Queue, work_of: WorkOf) -> None:
    work = work_of(overwrite="number")

    def add() -> None:
        other = Queue(queue.folder)
        for _ in range(5):
            other.add(work)
        other.close()

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jobs = queue.jobs()
    assert sorted(job.id for job in jobs) == list(range(1, 21))
    assert set(names(jobs)) == {"zdm", *(f"zdm-v{number}" for number in range(2, 21))}
    assert all(queue.work(job.id).name == job.name for job in jobs)


def test_a_disk_that_is_full_is_told_and_nothing_is_added(
    queue: Queue, work_of: WorkOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    work = work_of()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.raises(QueueFailed, match="No space left on device.*space on its disk"):
            queue.add(work)
    assert queue.jobs() == [] and not queue.job_folder(1).path.exists()
    assert queue.add(work).id == 1


def test_preparing_alone_has_the_datasets_name(queue: Queue, work_of: WorkOf, tmp_path: Path) -> None:
    prepare = Prepare(str(tmp_path / "datasets" / "set"), (str(tmp_path / "10_zdm"),))
    jobs = [queue.add(work_of(prepare, train=False)) for _ in range(2)]
    assert [(job.kind, job.name) for job in jobs] == [("prepare", "set")] * 2
    assert queue.work(1).prepare == prepare


# ---- the line


def test_the_line_and_the_history(queue: Queue, work_of: WorkOf) -> None:
    for name in "abc":
        put(queue, work_of, "queued", name)
    queue.add(work_of(output_name="d"), first=True)
    queue.store.claim(1.0)
    assert names(queue.line()) == ["d", "a", "b", "c"]
    assert names(queue.jobs()) == ["d", "c", "b", "a"]
    assert names(queue.jobs("running")) == ["d"]
    assert names(queue.jobs(("queued", "failed"), limit=2)) == ["c", "b"]
    assert names(queue.jobs(before=3)) == ["b", "a"]
    with pytest.raises(ValueError, match="'waiting' is no status; there are queued"):
        queue.jobs("waiting")


def test_a_job_is_moved(queue: Queue, work_of: WorkOf) -> None:
    ids = {name: put(queue, work_of, "queued", name).id for name in "abc"}
    assert queue.move(ids["c"], "first").id == ids["c"]
    assert names(queue.line()) == ["c", "a", "b"]
    queue.store.claim(1.0)
    with pytest.raises(WrongState, match="Job 3 is running: only a job that is queued can be moved"):
        queue.move(ids["c"], "last")
    with pytest.raises(ValueError, match="not 'sideways'"):
        queue.move(ids["a"], "sideways")


def test_a_copy_has_the_next_free_name(queue: Queue, work_of: WorkOf, tmp_path: Path) -> None:
    put(queue, work_of, "finished")
    assert [queue.copy(1).name, queue.copy(1).name, queue.copy(2).name] == ["zdm-v2", "zdm-v3", "zdm-v4"]
    (tmp_path / "Lora").mkdir()
    (tmp_path / "Lora" / "zdm-v5.safetensors").write_bytes(b"mine")
    copy = queue.copy(1)
    assert copy.name == "zdm-v6"
    assert queue.work(copy.id) == work_of(output_name="zdm-v6")
    assert queue.job(1).status == "finished"


def test_the_copy_of_a_job_whose_base_is_gone_is_refused(queue: Queue, work_of: WorkOf) -> None:
    job = put(queue, work_of, "finished")
    Path(queue.work(job.id).config.base_model).unlink()
    with pytest.raises(BadInput, match="base_model"):
        queue.copy(job.id)


# ---- states


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("id", [0, 2, -1, 2**64])
def test_a_job_that_is_none_is_told(queue: Queue, work_of: WorkOf, method: str, id: int) -> None:
    queue.add(work_of())
    with pytest.raises(NoSuchJob, match=f"There is no job {id}"):
        METHODS[method](queue, id)


@pytest.mark.parametrize(
    ("method", "allowed"),
    [
        ("pause", ACTIVE),
        ("save", ACTIVE),
        ("sample", ACTIVE),
        ("stop", ("queued", *ACTIVE)),
        ("resume", (*ACTIVE, *RESUMABLE)),
        ("retry", RESUMABLE),
        ("delete", ("queued", "finished", *RESUMABLE)),
        ("move", ("queued",)),
    ],
)
@pytest.mark.parametrize("status", STATUSES)
def test_what_may_be_done_in_which_state(
    queue: Queue, work_of: WorkOf, method: str, allowed: tuple[str, ...], status: str
) -> None:
    job = put(queue, work_of, status)
    if status in allowed:
        METHODS[method](queue, job.id)
        return
    with pytest.raises(WrongState, match=rf"^Job 1 is {status}: .*\.$"):
        METHODS[method](queue, job.id)
    assert queue.job(job.id) == job
    assert wishes(queue, job.id) == Wishes()


@pytest.mark.parametrize("status", ACTIVE)
@pytest.mark.parametrize(
    ("command", "wished"),
    [
        (Queue.pause, Wishes(paused=True)),
        (Queue.stop, Wishes(stop=True)),
        (lambda queue, id: queue.stop(id, save=True), Wishes(stop=True, save=True)),
        (Queue.save, Wishes(save=True)),
        (Queue.sample, Wishes(sample=True)),
        (Queue.resume, Wishes()),
    ],
)
def test_a_worker_is_told(
    queue: Queue, work_of: WorkOf, status: str, command: Callable[[Queue, int], str], wished: Wishes
) -> None:
    job = put(queue, work_of, status)
    heeded = []

    def heed(kind: str, /, **facts: Any) -> None:
        heeded.append((kind, facts["id"]))

    sent = command(queue, job.id)
    assert FileControl(queue.job_folder(job.id), heed).wishes() == wished
    assert heeded == [("heeded", sent)]
    assert queue.job(job.id) == job


def test_a_pause_that_has_not_come_through_can_be_taken_back(queue: Queue, work_of: WorkOf) -> None:
    job = put(queue, work_of, "running")
    queue.pause(job.id)
    queue.resume(job.id)
    assert wishes(queue, job.id) == Wishes()


def test_a_job_in_line_is_stopped_at_once_and_says_so(queue: Queue, work_of: WorkOf) -> None:
    job = queue.add(work_of())
    assert queue.stop(job.id) == ""
    stopped = queue.job(job.id)
    assert stopped.status == "stopped" and stopped.ended_at and queue.line() == []
    events, end = read_events(queue.job_folder(job.id).events)
    assert [event.kind for event in events] == ["stopped"]
    assert stopped.seen == end
    assert wishes(queue, job.id) == Wishes()


@pytest.mark.parametrize("status", RESUMABLE)
def test_an_ended_job_goes_on_next_with_what_it_has(queue: Queue, work_of: WorkOf, status: str) -> None:
    ended = put(queue, work_of, status)
    put(queue, work_of, "queued", "other")
    queue.store.change(ended.id, STATUSES, step=7)
    queue.job_folder(ended.id).state.write_bytes(b"state")
    assert queue.resume(ended.id) == ""
    assert names(queue.line()) == ["zdm", "other"]
    job = queue.job(ended.id)
    assert (job.status, job.step, job.ended_at) == ("queued", 7, None)
    assert queue.job_folder(ended.id).state.read_bytes() == b"state"


@pytest.mark.parametrize("fresh", [True, False])
def test_an_ended_job_begins_anew(queue: Queue, work_of: WorkOf, fresh: bool) -> None:
    ended = put(queue, work_of, "failed")
    put(queue, work_of, "queued", "other")
    queue.store.change(ended.id, STATUSES, step=7, epoch=1, loss=0.5)
    folder = queue.job_folder(ended.id)
    folder.models.mkdir()
    (folder.models / "zdm.safetensors").write_bytes(b"earlier")
    folder.state.write_bytes(b"state")
    job = queue.retry(ended.id, fresh)
    assert names(queue.line()) == ["zdm", "other"]
    assert folder.state.exists() != fresh
    assert (job.step, job.epoch, job.loss) == ((0, 0, None) if fresh else (7, 1, 0.5))
    assert bool(queue.loras(ended.id)) != fresh
    assert len(list(folder.earlier.rglob("zdm.safetensors"))) == fresh


def test_a_job_does_not_begin_anew_under_a_worker_that_lives(queue: Queue, work_of: WorkOf) -> None:
    job = put(queue, work_of, "stopped")
    folder = queue.job_folder(job.id)
    folder.models.mkdir()
    with Lock(folder.lock), pytest.raises(WrongState, match="its worker has not ended yet"):
        queue.retry(job.id)
    assert folder.models.exists() and queue.job(job.id) == job


def test_a_job_cannot_go_on_under_a_name_that_another_has_taken(queue: Queue, work_of: WorkOf) -> None:
    stopped = put(queue, work_of, "stopped")
    queue.job_folder(stopped.id).state.write_bytes(b"state")
    put(queue, work_of, "queued")
    for go_on in (queue.resume, queue.retry):
        with pytest.raises(WrongState, match="Job 1 can't go on: another unfinished job is called zdm"):
            go_on(stopped.id)
    assert queue.job(stopped.id).status == "stopped" and queue.job_folder(stopped.id).state.exists()


def test_a_deleted_job_leaves_what_was_published(queue: Queue, work_of: WorkOf) -> None:
    job = put(queue, work_of, "finished")
    folder = queue.job_folder(job.id)
    folder.models.mkdir()
    (folder.models / "zdm.safetensors").write_bytes(b"weights")
    published = queue.keep(job.id, "zdm.safetensors")
    queue.delete(job.id)
    assert published.read_bytes() == b"weights"
    assert not folder.path.exists() and queue.jobs() == []
    assert queue.add(work_of(output_name="next")).id == 2


def test_a_job_whose_worker_still_lives_is_not_deleted(queue: Queue, work_of: WorkOf) -> None:
    job = put(queue, work_of, "stopped")
    with Lock(queue.job_folder(job.id).lock), pytest.raises(WrongState):
        queue.delete(job.id)
    assert queue.work(job.id) == work_of()
    queue.delete(job.id)


def test_a_folder_that_stays_is_told(queue: Queue, work_of: WorkOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "The process cannot access the file")

    job = put(queue, work_of, "finished")
    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(QueueFailed, match="cannot access the file"):
        queue.delete(job.id)
    assert queue.jobs() == []
    assert queue.add(work_of()).id == 2
    queue.close()
    (queue.folder / "jobs.sqlite").unlink()
    again = Queue(queue.folder)
    assert names(again.jobs()) == ["zdm"]
    again.close()


# ---- what a job has made


def saved(queue: Queue, work_of: WorkOf) -> Job:
    job = put(queue, work_of, "running")
    folder = queue.job_folder(job.id)
    for path in (folder.models / "zdm-000001.safetensors", folder.models / "zdm.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    (folder.models / ".zdm.safetensors.7.tmp").write_bytes(b"half")
    os.utime(folder.models / "zdm.safetensors", (9, 9))
    folder.samples.mkdir()
    (folder.samples / "a.png").write_bytes(b"picture")
    folder.log.write_text("one\ntwo\nthree\n", encoding="utf-8")
    return job


def test_what_a_job_has_made_is_listed(queue: Queue, work_of: WorkOf) -> None:
    empty = queue.add(work_of(output_name="other"))
    assert (queue.loras(empty.id), queue.samples(empty.id), queue.log_tail(empty.id)) == ([], [], [])
    job = saved(queue, work_of)
    assert [path.name for path in queue.loras(job.id)] == ["zdm.safetensors", "zdm-000001.safetensors"]
    assert [path.name for path in queue.samples(job.id)] == ["a.png"]
    assert queue.log_tail(job.id, 2) == ["two", "three"]


def test_an_epoch_is_kept(queue: Queue, work_of: WorkOf, tmp_path: Path) -> None:
    job = saved(queue, work_of)
    lora = tmp_path / "Lora"
    assert queue.keep(job.id, "zdm-000001.safetensors") == lora / "zdm-000001.safetensors"
    assert queue.keep(job.id, "zdm-000001.safetensors", "ずんだ") == lora / "ずんだ.safetensors"
    assert queue.keep(job.id, "zdm-000001.safetensors", "ずんだ") == lora / "ずんだ.safetensors"
    assert {path.read_bytes() for path in lora.iterdir()} == {b"zdm-000001.safetensors"}


@pytest.mark.parametrize(
    ("file", "name", "problem"),
    [
        ("gone.safetensors", None, "is no LoRA of job 1"),
        ("../config.toml", None, "is no LoRA of job 1"),
        ("", None, "is no LoRA of job 1"),
        ("zdm.safetensors", "../a", "contains a path"),
        ("zdm.safetensors", "", "is empty"),
        ("zdm.safetensors", "a" * 300, "is too long"),
        ("zdm.safetensors", "mine", "mine.safetensors is in Lora already"),
    ],
)
def test_what_cannot_be_kept_is_told(
    queue: Queue, work_of: WorkOf, tmp_path: Path, file: str, name: str | None, problem: str
) -> None:
    job = saved(queue, work_of)
    mine = tmp_path / "Lora" / "mine.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(BadInput, match=problem):
        queue.keep(job.id, file, name)
    assert [path.name for path in mine.parent.iterdir()] == ["mine.safetensors"] and mine.read_bytes() == b"mine"


# ---- what it takes


FACTS = {
    "device": "GPU", "base": "base.safetensors", "family": "sd15", "pixels": 64 * 64 * 2, "rank": 32, "train": "both",
    "precision": "bf16", "checkpointing": False, "optimizer": "AdamW", "seconds_per_step": 2.0, "start_seconds": 10.0,
    "peak_mb": 3000.0, "accumulation": 1,
}  # fmt: skip


def test_an_estimate_comes_from_what_workers_measured(queue: Queue, work_of: WorkOf) -> None:
    config = work_of(repeats=10, epochs=3, batch_size=2).config
    assert queue.estimate(config).seconds is None
    queue.measured(FACTS)
    queue.measured({"device": "another one"})
    found = queue.estimate(config)
    assert (found.seconds, found.peak_mb, found.guess) == (10 + 2.0 * 15, 3000.0, False)  # a picture seen 10 times
    assert queue.estimate(config, steps=100).seconds == 210.0
    wrong = queue.estimate(replace(config, batch_size=0))
    assert wrong.seconds is None and "problems with the settings" in wrong.why


# ---- the folder


def test_a_queue_is_found_again(queue: Queue, work_of: WorkOf) -> None:
    for name in "ab":
        put(queue, work_of, "queued", name)
    queue.move(2, "first")
    other = Queue(queue.folder)
    assert other.line() == queue.line() and names(other.line()) == ["b", "a"]
    assert other.notices == []
    other.close()


def test_a_damaged_database_is_a_notice(queue: Queue, work_of: WorkOf) -> None:
    work: Work = work_of()
    queue.add(work)
    queue.close()
    (queue.folder / "jobs.sqlite").write_bytes(b"no database at all " * 500)
    again = Queue(queue.folder)
    assert again.work(1) == work and names(again.line()) == ["zdm"]
    assert "jobs.sqlite was damaged" in again.notices[0]
    again.close()


def test_a_place_where_no_queue_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(QueueFailed, match="can't be read or written"):
        Queue(tmp_path / "file" / "jobs")

"""Host processes killed in every state that a job can be in; the next one must find each job as it truly is."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.host import HostProcess
from benchmarks.faults.jobs import Size, Stuck, job_config, wait_for, wait_for_status
from benchmarks.faults.remains import workers_of
from lora_trainer.jobs.event_log import last_event
from lora_trainer.jobs.job import ACTIVE, Job
from lora_trainer.jobs.processes import end
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

ENDLESS = 10_000  # epochs of a job that ends when it is told to
A_FEW = Size(epochs=1, repeats=1, worker_kills=0, host_kills=0, listed=0, leases=0, bodies=0)  # seven steps


def kill_hosts(work: Path, size: Size) -> dict[str, Any]:
    """One state after the other, round and round."""
    stage = Stage(work / "hosts")
    states: Counter[str] = Counter()
    found: Counter[str] = Counter(wrong_state=0, second_workers=0, restarted_workers=0, lost_jobs=0)
    try:
        for scene in itertools.islice(itertools.cycle(SCENES), size.host_kills):
            job, truth = scene(stage)
            states[scene.__name__] += 1
            found.update(look(stage, stage.queue.job(job.id), truth))
    finally:
        stage.close()
    return {
        "host_kills": sum(states.values()),
        "host_kills_by_state": dict(states),
        **{f"host_kills_{what}": count for what, count in found.items()},
    }


def look(stage: Stage, before: Job, truth: str) -> Counter[str]:
    """What is wrong in the eyes of a new host. `before`: the job's row as the killed one left it."""
    stage.host = HostProcess(stage.queue.folder)
    is_right = stage.shows(before, truth)
    workers = workers_of(stage.queue.job_folder(before.id))
    adopted = truth in ACTIVE and before.status in ACTIVE and before.pid is not None
    return Counter(
        wrong_state=not is_right,
        second_workers=len(workers) > 1,
        restarted_workers=adopted and before.pid not in workers,
        lost_jobs=len(stage.queue.jobs()) != stage.added,
    )


class Stage:
    """A queue with a job that goes on for ever, and the host process of the time."""

    def __init__(self, folder: Path):
        self._folder, self.added = folder, 0
        self.queue = Queue(folder / "jobs")
        self.host = HostProcess(self.queue.folder)
        self.job = self.add(ENDLESS)

    def add(self, epochs: int) -> Job:
        self.added += 1
        config = job_config(
            A_FEW, self._folder / "Lora", f"job{self.added}", epochs=epochs, preview_every_epochs=0,
            preview_at_start=False, save_every_epochs=5, keep_last=1,
        )  # fmt: skip
        return self.queue.add(Work(config))

    def close(self) -> None:
        """Ends everything that was started, whatever went wrong."""
        self.host.kill()
        for job in self.queue.jobs():
            for pid in workers_of(self.queue.job_folder(job.id)):
                end(pid)

    def running(self) -> Job:
        """The endless job at its steps, whatever it was before."""
        if self.queue.job(self.job.id).status not in ("queued", "running"):
            self.queue.resume(self.job.id)
        wait_for_status(self.queue, self.job, "running")
        self._goes_on(self.job)
        return self.job

    def paused(self) -> Job:
        self.queue.pause(self.running().id)
        return wait_for_status(self.queue, self.job, "paused")

    def stopped(self) -> Job:
        if self.queue.job(self.job.id).status in ("queued", *ACTIVE):
            self.queue.stop(self.job.id)
            wait_for_status(self.queue, self.job, "stopped", "interrupted")
        return self.job

    def shows(self, job: Job, truth: str) -> bool:
        """Whether the host says before long what is true of a job, and stays with it."""
        try:
            wait_for(lambda: self.queue.job(job.id).status == truth, f"job {job.id} {truth}", seconds=60)
            if truth == "running":
                self._goes_on(job)
        except Stuck:
            return False
        return self.queue.job(job.id).status == truth

    def _goes_on(self, job: Job) -> None:
        """Until the job's row tells of another step: it is worked on, and a host reads its events."""
        step = self.queue.job(job.id).step
        wait_for(lambda: self.queue.job(job.id).step != step, f"a step of job {job.id}, which should run")


Truth = tuple[Job, str]


def idle(stage: Stage) -> Truth:
    job = stage.stopped()
    stage.host.kill()
    return job, stage.queue.job(job.id).status


def queued(stage: Stage) -> Truth:
    """Queued while no host is there."""
    job = stage.stopped()
    stage.host.kill()
    stage.queue.resume(job.id)
    assert stage.queue.job(job.id).status == "queued"
    return job, "running"


def starting(stage: Stage) -> Truth:
    """Claimed a moment ago: its worker may or may not be there, and is started again where it is not."""
    job = stage.stopped()
    stage.queue.resume(job.id)
    wait_for_status(stage.queue, job, "running")
    stage.host.kill()
    return job, "running"


def running(stage: Stage) -> Truth:
    job = stage.running()
    stage.host.kill()
    return job, "running"


def pausing(stage: Stage) -> Truth:
    job = stage.running()
    stage.queue.pause(job.id)
    stage.host.kill()
    return job, "paused"


def paused(stage: Stage) -> Truth:
    job = stage.paused()
    stage.host.kill()
    return job, "paused"


def resuming(stage: Stage) -> Truth:
    job = stage.paused()
    stage.queue.resume(job.id)
    stage.host.kill()
    return job, "running"


def saving(stage: Stage) -> Truth:
    job = stage.running()
    stage.queue.save(job.id)
    stage.host.kill()
    return job, "running"


def lent(stage: Stage) -> Truth:
    """The host has the GPU; without a host, the job takes it back."""
    job = stage.running()
    stage.host.say("lend")
    stage.host.expect("lent")
    stage.host.kill()
    return job, "running"


def stopping(stage: Stage) -> Truth:
    job = stage.running()
    stage.queue.stop(job.id)
    stage.host.kill()
    return job, "stopped"


def rebooted(stage: Stage) -> Truth:
    """The worker is gone, too."""
    job = stage.running()
    worker = psutil.Process(stage.queue.job(job.id).pid or -1)
    stage.host.kill()
    worker.kill()
    return job, "interrupted"


def finishing(stage: Stage) -> Truth:
    """The job ends while no host is there."""
    stage.stopped()
    job = wait_for_status(stage.queue, stage.add(1), "running")
    events = stage.queue.job_folder(job.id).events
    wait_for(lambda: last_event(events), f"an event of job {job.id}")
    stage.host.kill()
    wait_for(lambda: not workers_of(stage.queue.job_folder(job.id)), f"the end of job {job.id}")
    return job, "finished"


SCENES = (
    running, lent, pausing, resuming, paused, saving, stopping, queued, rebooted, starting, idle, finishing,
)  # fmt: skip

"""Workers killed at random moments, each time resumed, until their jobs are finished."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.host import HostProcess
from benchmarks.faults.jobs import Size, job_config, wait_for, wait_for_status
from benchmarks.faults.reference import Reference, unbroken
from benchmarks.faults.remains import damaged, is_alive, left_behind, outliving
from lora_trainer.jobs.event_log import end_of_events, read_events
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

SAVES: dict[str, Any] = {"save_every_steps": 5, "keep_last": 4}  # often, so that kills meet them


def kill_workers(work: Path, size: Size) -> dict[str, Any]:
    """A job that is finished before all kills are done is followed by another one; the last one finishes in peace."""
    reference, folder, chance = unbroken(work), work / "workers", random.Random(0)
    queue = Queue(folder / "jobs")
    jobs: list[Job] = []
    count: Counter[str] = Counter()
    with HostProcess(queue.folder):
        while count["kills"] < size.worker_kills:
            config = job_config(size, folder / "Lora", f"job{len(jobs)}", **SAVES)
            jobs.append(queue.add(Work(config)))
            while count["kills"] < size.worker_kills and queue.job(jobs[-1].id).status != "finished":
                count += kill_worker(queue, jobs[-1], *random_life(chance, reference))
                count["half_files"] += len(damaged(queue.folder, folder / "Lora"))
        wait_for_status(queue, jobs[-1], "finished")
    finished = queue.jobs(status="finished")
    return {
        "worker_kills": count["kills"],
        "worker_kills_before_a_step": count["before_a_step"],
        "worker_kills_while_writing": count["while_writing"],
        "worker_kills_jobs": len(jobs),
        "worker_kills_lost_jobs": len(jobs) - len(finished),
        "worker_kills_half_files": count["half_files"],
        "worker_kills_left_over_files": len(left_behind(queue.folder, folder / "Lora")),
        "worker_kills_left_running": count["left_running"],
        "worker_kills_unequal_weights": sum(
            reference.unequal(Path(job.lora), queue.job_folder(job.id)) for job in finished
        ),
    }


def random_life(chance: random.Random, reference: Reference) -> tuple[int, float]:
    """Steps that a worker may take, and seconds that it lives on: a quarter are killed on the way to the first step."""
    if chance.random() < 0.25:
        return 0, chance.uniform(0, reference.start_seconds)
    return chance.randint(1, 25), chance.uniform(0, 0.3)


def kill_worker(queue: Queue, job: Job, steps: int, seconds: float) -> Counter[str]:
    """Kills the job's worker that long after so many steps, unless it has ended by itself, and resumes the job."""
    folder = queue.job_folder(job.id)
    begin = end_of_events(folder.events)
    worker = psutil.Process(wait_for(lambda: queue.job(job.id).pid, f"a worker of job {job.id}"))
    wait_for(lambda: steps_told(folder, begin) >= steps or not is_alive(worker), f"{steps} steps of job {job.id}")
    time.sleep(seconds)
    try:
        children = worker.children(recursive=True)
        worker.kill()
    except psutil.NoSuchProcess:
        wait_for_status(queue, job, "finished")
        return Counter()
    if wait_for_status(queue, job, "interrupted", "finished").status == "interrupted":
        queue.resume(job.id)
    return Counter(
        kills=1,
        before_a_step=steps_told(folder, begin) == 0,
        while_writing=any(path.name.endswith(f".{worker.pid}.tmp") for path in left_behind(folder.path)),
        left_running=outliving(children),
    )


def steps_told(folder: JobFolder, begin: int) -> int:
    """How many steps a job's events tell of from an offset on."""
    return sum(event.kind == "progress" for event in read_events(folder.events, begin)[0])

"""The job that the faults befall, and waiting for what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_trainer.config import Config, Subset
from lora_trainer.demo.mascots import MASCOT
from lora_trainer.demo.run import demo_config
from lora_trainer.jobs.job import UNFINISHED, Job
from lora_trainer.jobs.queue import Queue
from lora_trainer.packages import environment_for_child

PATIENCE = 180.0  # seconds after which something that should have happened will not


class Stuck(Exception):
    """What did not happen in time."""


@dataclass(frozen=True)
class Size:
    """How much of everything: the job's epochs and repeats of its seven pictures, and the count of each fault."""

    epochs: int
    repeats: int
    worker_kills: int
    host_kills: int
    listed: int
    leases: int
    bodies: int


FULL = Size(epochs=10, repeats=10, worker_kills=100, host_kills=50, listed=1000, leases=20, bodies=200)
SHORT = Size(epochs=1, repeats=4, worker_kills=2, host_kills=3, listed=50, leases=2, bodies=25)


def job_config(size: Size, folder: Path, name: str, **changes: Any) -> Config:
    """The demo's training with one preview, its LoRAs in `folder`; what `changes` has may not change its weights."""
    config = replace(
        demo(),
        subsets=(Subset(folder=str(MASCOT.folder), repeats=size.repeats),),
        epochs=size.epochs,
        preview_prompts=demo().preview_prompts[:1],
        preview_steps=5,
        save_precision="fp32",
        output_folder=str(folder),
        output_name=name,
    )
    return replace(config, **changes)


@lru_cache
def demo() -> Config:
    """Drawn once: its prompts come with the pictures that they are for."""
    return demo_config(Path(), "")


def environment() -> dict[str, str]:
    """That of every process that trains, or starts one that does. Sums of two threads may be rounded otherwise."""
    return {**environment_for_child(), "OMP_NUM_THREADS": "1"}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What `condition` returns as soon as it is true. Stuck, naming `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Stuck(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)
    return found


def wait_for_status(queue: Queue, job: Job, *statuses: str) -> Job:
    """Stuck where the job ends otherwise."""

    def reached() -> Job | None:
        found = queue.job(job.id)
        if found.status in statuses:
            return found
        if found.status not in UNFINISHED:
            raise Stuck(f"job {job.id} should become {' or '.join(statuses)} and is {found.status}: {found.cause}")
        return None

    found: Job = wait_for(reached, f"job {job.id} {' or '.join(statuses)}")
    return found

"""What the commands about jobs have in common: where they lie, which one is meant, and how one is told."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lora_trainer.commands.datasets import table
from lora_trainer.config import BadInput, Problem
from lora_trainer.jobs.estimates import Estimate
from lora_trainer.jobs.job import ACTIVE, Job
from lora_trainer.jobs.queue import Queue
from lora_trainer.packages import ROOT

DOING = {"prepare": "preparing", "grid": "a grid"}  # what a job does that does not train


def add_jobs(parser: argparse.ArgumentParser, *, of_action: bool = False) -> None:
    """Which queue, and how it is told. `of_action`: what was given before the action holds, unless given again."""
    here = argparse.SUPPRESS if of_action else ROOT / "jobs"
    parser.add_argument(
        "--jobs", type=Path, default=here, metavar="FOLDER", help="the queue's folder (the extension's own)"
    )
    plain = argparse.SUPPRESS if of_action else False
    parser.add_argument("--json", action="store_true", default=plain, help="print JSON")


def add_status(parser: argparse.ArgumentParser, choices: Sequence[str]) -> None:
    parser.add_argument("--status", choices=choices, help="only those that are so")


def natural(text: str) -> int:
    """For argparse: a whole number from 0 on."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def open_queue(arguments: argparse.Namespace) -> Queue:
    queue = Queue(arguments.jobs.expanduser())
    for notice in queue.notices:
        print(notice, file=sys.stderr)
    return queue


def running_job(queue: Queue) -> Job | None:
    """The one that runs or is paused."""
    return next((job for job in queue.line() if job.status in ACTIVE), None)


def job_meant(queue: Queue, number: int | None) -> Job:
    """The job of this id, else the one that runs. BadInput where none runs, NoSuchJob where there is no such id."""
    if number is not None:
        return queue.job(number)
    running = running_job(queue)
    if running is None:
        raise BadInput(Problem("job", None, "none is running", "Name one by its ID: `queue list` shows them."))
    return running


def say(arguments: argparse.Namespace, job: Job, sentence: str) -> int:
    """The sentence, or with --json the job; the exit code 0."""
    print(as_json(facts_of(job)) if arguments.json else sentence)
    return 0


def facts_of(job: Job) -> dict[str, Any]:
    return asdict(job)


def as_json(facts: Any) -> str:
    return json.dumps(facts, ensure_ascii=False, default=str)


def lines_of(jobs: Sequence[Job]) -> list[str]:
    """A table with a line for each job."""
    rows = [("id", "status", "name", "added", "how far")]
    rows += [(str(job.id), job.status, titled(job), when(job.created_at), how_far(job)) for job in jobs]
    return table(rows, right=[0])


def sentences(job: Job) -> Iterator[str]:
    """A job as a person reads it."""
    yield f"Job {job.id}: {titled(job)}, {job.status}."
    times = {"added": job.created_at, "started": job.started_at, "ended": job.ended_at}
    yield ", ".join(f"{what} {when(at)}" for what, at in times.items() if at) + "."
    if far := how_far(job):
        yield f"{far[0].upper()}{far[1:]}."
    yield from filter(None, (job.cause, job.remedy))
    if job.lora:
        yield f"LoRA: {job.lora}"


def expected(estimate: Estimate) -> str:
    """How long a training will take and how much memory, as far as that can be told."""
    if estimate.seconds is None or estimate.peak_mb is None:
        return estimate.why
    minutes = max(1, round(estimate.seconds / 60))
    return f"It takes about {minutes // 60} h {minutes % 60} min and {estimate.peak_mb:.0f} MiB. {estimate.why}"


def titled(job: Job) -> str:
    return f"{job.name} ({DOING[job.kind]})" if job.kind in DOING else job.name


def how_far(job: Job) -> str:
    if not job.steps:
        return ""
    loss = "" if job.loss is None else f", loss {job.loss:.4f}"
    return f"step {job.step} of {job.steps}, epoch {job.epoch} of {job.epochs}{loss}"


def when(at: float | None) -> str:
    """A time in seconds since 1970 as this machine's clock shows it."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(at))

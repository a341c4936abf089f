"""The queue as its jobs' folders tell it, for when the database is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput
from lora_trainer.jobs.endings import ending
from lora_trainer.jobs.event_log import Event, read_events
from lora_trainer.jobs.folder import JobFolder, job_folders
from lora_trainer.jobs.job import ACTIVE, UNFINISHED, Job
from lora_trainer.jobs.summary import columns
from lora_trainer.jobs.work import Work
from lora_trainer.locks import is_taken

_SAME_NAME = ("Another job of this name waits.", "Resume it once that one is done.")


def new_job(work: Work, created_at: float) -> Job:
    """The row of a job that is added. Its number is given by the store."""
    return Job(
        kind=work.kind,
        name=work.name,
        base=Path(work.config.base_model).name,
        output_folder=work.output_folder,
        created_at=created_at,
    )


def found_jobs(queue: Path) -> Iterator[Job]:
    """The jobs in a queue's folder, by their numbers. What was waiting to go on counts as stopped or interrupted."""
    waiting = set()
    for folder in job_folders(queue):
        try:
            job = replace(new_job(folder.read(), folder.created_at()), id=folder.id, position=folder.id)
        except BadInput:  # no job, or one that nothing can be done with
            continue
        job = replace(job, **_told(folder, job.kind))
        name = (job.kind, job.output_folder, job.name.lower())
        if job.kind == "train" and job.status in UNFINISHED:
            if name in waiting:  # an adding that was killed leaves a folder, and is done again
                job = replace(job, status="stopped", cause=_SAME_NAME[0], remedy=_SAME_NAME[1])
            waiting.add(name)
        yield job


def _told(folder: JobFolder, kind: str) -> dict[str, Any]:
    """What a job's files say of it beyond what it is to do."""
    told: dict[str, Any] = {}
    last, offset = None, 0
    while True:
        events, offset = read_events(folder.events, offset)
        if not events:
            break
        last = events[-1]
        for event in events:
            told |= columns(event.kind, event.facts)
            if event.kind == "started":
                told |= {"started_at": event.at, "attempts": told.get("attempts", 0) + 1}
    return {**told, "seen": offset, **_state(folder, kind, last, told.get("status", "running"))}


def _state(folder: JobFolder, kind: str, last: Event | None, status: str) -> dict[str, Any]:
    if is_taken(folder.lock):
        return {"status": status if status in ACTIVE else "running"}
    if last is None and not folder.worker.exists():
        return {"status": "queued"}
    return {**vars(ending(kind, None, last, [])), "ended_at": last and last.at}

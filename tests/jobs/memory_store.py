"""The store of jobs as plainly as can be: what the one in SQLite has to do."""

from __future__ import annotations

import copy
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lora_trainer.jobs.estimates import Measurement
from lora_trainer.jobs.job import ACTIVE, STATUSES, UNFINISHED, Job, NoSuchJob
from lora_trainer.jobs.store import KEPT_MEASUREMENTS, NameTaken


class MemoryStore:
    """`waiting` are the numbers of the queued jobs in their order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rows: dict[int, Job] = {}
        self._waiting: list[int] = []
        self._used = 0
        self._measured: list[Measurement] = []

    @contextmanager
    def changing(self) -> Iterator[None]:
        with self._lock:
            before = copy.deepcopy((self._rows, self._waiting, self._used, self._measured))
            try:
                yield
            except BaseException:
                self._rows, self._waiting, self._used, self._measured = before
                raise

    def add(self, job: Job, first: bool = False) -> Job:
        job = replace(job, id=max(job.id, self._used + 1), status="queued")
        self._check_name(job)
        self._used = job.id
        self._rows[job.id] = job
        self._waiting.insert(0 if first else len(self._waiting), job.id)
        return job

    def job(self, id: int) -> Job:
        if id not in self._rows:
            raise NoSuchJob(id)
        return self._rows[id]

    def jobs(
        self, statuses: Collection[str] = STATUSES, limit: int | None = None, before: int | None = None
    ) -> list[Job]:
        newest = [self._rows[id] for id in sorted(self._rows, reverse=True)]
        return [job for job in newest if job.status in statuses and (before is None or job.id < before)][:limit]

    def line(self) -> list[Job]:
        active = [job for _, job in sorted(self._rows.items()) if job.status in ACTIVE]
        return active + [self._rows[id] for id in self._waiting]

    def claim(self, at: float) -> Job | None:
        if len(self.line()) > len(self._waiting) or not self._waiting:
            return None
        job = self._rows[self._waiting.pop(0)]
        job = replace(job, status="running", started_at=at, ended_at=None, attempts=job.attempts + 1)
        self._rows[job.id] = replace(job, reason="", cause="", remedy="")
        return self._rows[job.id]

    def change(self, id: int, when: Collection[str], **values: Any) -> bool:
        if id not in self._rows or self._rows[id].status not in when:
            return False
        job = replace(self._rows[id], **values)
        self._check_name(job)
        self._rows[id] = job
        if job.status != "queued" and id in self._waiting:
            self._waiting.remove(id)
        return True

    def requeue(self, id: int, when: Collection[str]) -> bool:
        if not self.change(id, when, status="queued", ended_at=None, pid=None):
            return False
        if id in self._waiting:
            self._waiting.remove(id)
        self._waiting.insert(0, id)
        return True

    def move(self, id: int, where: str) -> bool:
        if id not in self._waiting:
            return False
        place = self._waiting.index(id)
        self._waiting.remove(id)
        to = {"up": max(0, place - 1), "down": place + 1, "first": 0, "last": len(self._waiting)}[where]
        self._waiting.insert(to, id)
        return True

    def delete(self, id: int, when: Collection[str]) -> bool:
        if id not in self._rows or self._rows[id].status not in when:
            return False
        del self._rows[id]
        if id in self._waiting:
            self._waiting.remove(id)
        return True

    def measure(self, measurement: Measurement) -> None:
        self._measured = [*self._measured, measurement][-KEPT_MEASUREMENTS:]

    def measurements(self) -> list[Measurement]:
        return list(self._measured)

    def close(self) -> None: ...

    def _check_name(self, job: Job) -> None:
        for other in self._rows.values():
            same = (other.output_folder, other.name.lower()) == (job.output_folder, job.name.lower())
            both_train = other.kind == job.kind == "train"
            if same and both_train and other.id != job.id and {other.status, job.status} <= set(UNFINISHED):
                raise NameTaken

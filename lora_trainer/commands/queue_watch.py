"""What goes on in a queue, told until nothing is left in it."""

from __future__ import annotations

import sys
import time

from lora_trainer.commands.progress import Bar, print_json
from lora_trainer.commands.queued import titled
from lora_trainer.jobs.event_log import Event, end_of_events, read_events
from lora_trainer.jobs.job import Job, NoSuchJob
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.stops import Stop
from lora_trainer.jobs.store import QueueFailed
from lora_trainer.jobs.supervisor import Supervisor

EVERY = 0.3  # seconds between two looks


def watch(queue: Queue, supervisor: Supervisor, stop: Stop, as_json: bool) -> list[Job]:
    """Tells the events of the jobs until none is left or `stop` is wanted; returns those that have ended meanwhile."""
    teller, watched = Teller(as_json), Watched(queue)
    try:
        while not stop.wanted:
            teller.remark(supervisor.watching or supervisor.trouble)
            try:
                if not watched.look(teller):
                    break
            except QueueFailed as problem:  # such as a full disk, on which there may be room again
                teller.remark(str(problem))
            time.sleep(EVERY)
    finally:
        teller.close()
    return watched.ended


class Watched:
    """The jobs that were met in the queue, and how far each one's events were told."""

    def __init__(self, queue: Queue):
        self._queue = queue
        self._offsets: dict[int, int] = {}
        self.ended: list[Job] = []

    def look(self, teller: Teller) -> bool:
        """Tells what is new, and which jobs have ended; returns whether any is left. Raises QueueFailed."""
        unfinished = {job.id for job in self._queue.line()}
        for id in unfinished - self._offsets.keys():
            self._offsets[id] = end_of_events(self._queue.job_folder(id).events)
        for id in list(self._offsets):
            try:
                job = self._queue.job(id)
            except NoSuchJob:  # deleted meanwhile
                del self._offsets[id]
                continue
            events, self._offsets[id] = read_events(self._queue.job_folder(id).events, self._offsets[id])
            for event in events:
                teller.tell(job, event)
            if id not in unfinished and not events:
                teller.ended(job)
                self.ended.append(job)
                del self._offsets[id]
        return bool(unfinished or self._offsets)


class Teller:
    """One job's bar after the other, or a JSON object for each event, with its job's id."""

    def __init__(self, as_json: bool):
        self._as_json, self._bar, self._job, self._remark = as_json, Bar(), 0, ""

    def tell(self, job: Job, event: Event) -> None:
        if self._as_json:
            print_json(event.kind, job=job.id, at=event.at, **event.facts)
            return
        if job.id != self._job:
            self.close()
            self._job, self._bar = job.id, Bar()
            print(f"Job {job.id}, {titled(job)}:", file=sys.stderr)
        if event.kind not in ("stopped", "failed"):  # told as the supervisor saw it
            self._bar(event.kind, **event.facts)

    def ended(self, job: Job) -> None:
        if self._as_json:
            print_json("ended", job=job.id, status=job.status, cause=job.cause, remedy=job.remedy)
            return
        self.close()
        print(" ".join(filter(None, (f"Job {job.id}, {titled(job)}: {job.status}.", job.cause, job.remedy))))

    def remark(self, sentence: str) -> None:
        """Said once, on standard error."""
        if sentence and sentence != self._remark:
            print(sentence, file=sys.stderr)
        self._remark = sentence

    def close(self) -> None:
        self._bar.close()

"""One job from its start to its end: the GPU is lent again and again, and clients follow its events over HTTP."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults.host import HostProcess
from benchmarks.faults.jobs import Size, job_config, wait_for, wait_for_status
from benchmarks.faults.reference import unbroken
from benchmarks.faults.serving import serving
from lora_trainer.jobs.event_log import read_events
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

CLIENTS = 5
SECONDS_LENT = 0.3


def lend_and_follow(work: Path, size: Size) -> dict[str, Any]:
    """Clients 0 and 1 stay connected; the others lose their connection now and then, and read on from what they had."""
    reference, folder = unbroken(work), work / "live"
    queue = Queue(folder / "jobs")
    job = queue.add(Work(job_config(size, folder / "Lora", "lent", preview_every_epochs=0)))
    with serving(queue) as port, ThreadPoolExecutor(CLIENTS) as threads:
        clients = [Client(port, job.id, number) for number in range(CLIENTS)]
        following = [threads.submit(client.follow) for client in clients]
        with HostProcess(queue.folder) as host:
            steps = [lend(queue, host, job) for _ in range(size.leases)]
            job = wait_for_status(queue, job, "finished")
        for each in following:
            each.result()
    return {
        "leases": len(steps),
        "leases_steps_while_lent": sum(steps),
        "leases_unequal_weights": reference.unequal(Path(job.lora), queue.job_folder(job.id)),
        **compared(clients, queue.job_folder(job.id).events),
    }


def lend(queue: Queue, host: HostProcess, job: Job) -> int:
    """Gives the GPU away once, after a step or two; how many steps were taken nevertheless."""
    step = queue.job(job.id).step
    wait_for(lambda: queue.job(job.id).step > step, f"a step of job {job.id}")
    events = queue.job_folder(job.id).events
    host.say("lend")
    host.expect("lent")
    before = events.stat().st_size
    time.sleep(SECONDS_LENT)
    told, _ = read_events(events, before)
    host.say("back")
    host.expect("back")
    return sum(event.kind == "progress" for event in told)


def compared(clients: list[Client], events: Path) -> dict[str, int]:
    """What the clients were told beside what the job's file holds, line by line."""
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    told = [[event for _, event in client.told] for client in clients]
    ids = [[id for id, _ in client.told] for client in clients]
    return {
        "clients": len(clients),
        "clients_events": len(lines),
        "clients_reconnected": sum(client.reconnected for client in clients),
        "clients_missed": sum(line not in each for each in told for line in lines),
        "clients_repeated": sum(len(each) - len(set(each)) for each in ids),
        "clients_out_of_order": sum(each != lines for each in told),
    }


@dataclass
class Client:
    """Reads a job's server-sent events to their end."""

    port: int
    job: int
    number: int
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    reconnected: int = 0

    def follow(self) -> None:
        chance = random.Random(self.number)
        while not self._read(chance.randint(20, 60) if self.number > 1 else None):
            self.reconnected += 1

    def _read(self, most: int | None) -> bool:
        """Reads from a connection of its own, at most so many events; whether the job has ended."""
        last = {"Last-Event-ID": self.told[-1][0]} if self.told else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", f"/lora-trainer/v1/jobs/{self.job}/events", headers=last)
        try:
            for count, (kind, id, data) in enumerate(messages(connection.getresponse()), 1):
                if kind == "ended":
                    return True
                self.told.append((id, json.loads(data)))
                if count == most:
                    return False
            return False
        finally:
            connection.close()


def messages(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """Event, id and data of each message of a stream (WHATWG HTML, server-sent events)."""
    fields: dict[str, str] = {}
    for line in iter(answer.readline, b""):
        text = line.decode("utf-8").rstrip("\n")
        if text:
            name, _, value = text.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield fields.get("event", "message"), fields.get("id", ""), fields["data"]
            fields = {}

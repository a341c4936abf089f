"""A job from its request to its end: a real server, the real supervisor, and a worker process that does no work."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from fastapi import FastAPI

from lora_trainer.api import mount
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from tests.api.conftest import AWS, OPEN, V1, ConfigOf, FakeHost, served
from tests.jobs.stub_host import command
from tests.jobs.stub_worker import FREED


def test_a_job_is_started_commanded_and_followed_to_its_end(
    app: FastAPI, queue: Queue, host: FakeHost, dataset: Path, config_of: ConfigOf
) -> None:
    supervisor = Supervisor(queue, host, poll=0.01, command=command)
    mount(app, queue, supervisor, host, OPEN, dataset.parent)
    supervisor.start()
    with served(app) as address, httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        client.post(f"{V1}/jobs", json={"config": config_of()})
        seen = []
        with client.stream("GET", f"{V1}/jobs/1/events") as answer:
            for line in answer.iter_lines():
                facts = json.loads(line[len("data: ") :]) if line.startswith("data: ") else {}
                kind = facts.get("event", facts.get("status", ""))
                if kind == "progress" and "paused" not in seen:
                    assert client.post(f"{V1}/jobs/1/pause").status_code in (202, 409)  # 409: not claimed a moment ago
                elif kind == "paused":
                    assert facts["freed"] == FREED
                    client.post(f"{V1}/jobs/1/resume")
                elif kind == "resumed":
                    (queue.job_folder(1).path / "finish").touch()
                seen += [kind] if kind not in ("", "progress", "heeded") else []
        assert seen[0] == "started" and seen[-2:] == ["finished", "finished"]  # the event, then the job itself
        assert "paused" in seen and "resumed" in seen
        (listed,) = client.get(f"{AWS}/trainings").json()["data"]["trainings"]
        assert listed["status"] == "Completed"
    supervisor.close()

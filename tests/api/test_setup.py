"""The state of the training packages, and their installation, by the API."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.installing import Installation
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from tests.api.conftest import OPEN, V1, Client, FakeHost
from tests.jobs.patience import until

SETUP = f"{V1}/setup"


def test_a_host_that_has_seen_to_the_packages_is_ready(client: Client) -> None:
    for method in ("GET", "POST"):
        answer = client(method, SETUP)
        assert (answer.status_code, answer.json()["state"]) == (200, "ready")


def mounted(app: FastAPI, queue: Queue, host: FakeHost, access: Access = OPEN) -> Installation:
    """One that fails, as there is no such Python."""
    supervisor = Supervisor(queue, host)
    installation = Installation(str(host.home / "no-python"), supervisor)
    mount(app, queue, supervisor, host, access, host.home / "datasets", installation=installation)
    return installation


def test_it_is_begun_and_asked_after(app: FastAPI, client: Client, queue: Queue, host: FakeHost) -> None:
    mounted(app, queue, host)
    assert client.get(SETUP).json() == {"state": "looking", "line": "", "share": 0.0, "since": 0.0, "lines": []}
    assert client.post(SETUP, json={"again": "yes"}).status_code == 422
    assert client.post(SETUP).status_code == 202
    until(lambda: client.get(SETUP).json()["state"] == "failed")
    assert "no-python" in client.get(SETUP).json()["line"]
    assert "no-python" in client.get(f"{V1}/queue").json()["supervisor"]["watching"]


def test_nobody_from_elsewhere_begins_it(app: FastAPI, queue: Queue, host: FakeHost, tmp_path: Path) -> None:
    closed = Access(users=None, gradio_app=None, listening_remotely=True, allowed_remotely=False)
    installation = mounted(app, queue, host, closed)
    for method in ("GET", "POST"):
        assert Client(app)(method, SETUP).status_code == 403
    assert installation.state == "looking"

"""The API on an app of its own, over a real queue and folders that a host would have."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from lora_trainer.api import Access, mount
from lora_trainer.api.tasks import TASKS
from lora_trainer.hosts.alone import NoHost
from lora_trainer.jobs.queue import Queue
from tests.jobs.conftest import queue
from tests.jobs.patience import until

__all__ = ["queue"]

V1, AWS = "/lora-trainer/v1", "/lora-trainer/aws"
CHECKPOINT = "base.safetensors [0123456789]"
OPEN = Access(users=None, gradio_app=None, listening_remotely=False, allowed_remotely=False)


@dataclass(frozen=True)
class FakeHost(NoHost):
    """A host with one checkpoint and one folder of LoRAs."""

    home: Path = field(default_factory=Path)

    def lora_folders(self) -> list[Path]:
        return [self.home / "Lora"]

    def checkpoints(self) -> list[tuple[str, Path]]:
        return [(CHECKPOINT, self.home / "base.safetensors")]


class Client:
    """Asks an app without a network, from this very machine unless it is said otherwise.

    What the app raises is raised here: no test passes over a traceback.
    """

    def __init__(self, app: FastAPI, base: str = "http://127.0.0.1:7860", **options: Any) -> None:
        self.app, self.base, self.options = app, base, options

    def __call__(self, method: str, path: str, **request: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            app = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=app, base_url=self.base, trust_env=False, **self.options) as client:
                return await client.request(method, path, **request)

        return asyncio.run(ask())

    def get(self, path: str, **request: Any) -> httpx.Response:
        return self("GET", path, **request)

    def post(self, path: str, **request: Any) -> httpx.Response:
        return self("POST", path, **request)

    def put(self, path: str, **request: Any) -> httpx.Response:
        return self("PUT", path, **request)

    def delete(self, path: str, **request: Any) -> httpx.Response:
        return self("DELETE", path, **request)


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Its base model is no real one: what is in it does not matter before a job starts."""
    (tmp_path / "base.safetensors").write_bytes(b"weights")
    (tmp_path / "Lora").mkdir()
    return FakeHost(home=tmp_path)


@pytest.fixture
def app(queue: Queue, host: FakeHost, tmp_path: Path) -> FastAPI:
    app = FastAPI()
    mount(app, queue, None, host, OPEN, tmp_path / "datasets")
    return app


@pytest.fixture
def client(app: FastAPI) -> Client:
    return Client(app)


def png(colour: str = "green", size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset named zdm, of one picture."""
    folder = tmp_path / "datasets" / "zdm" / "10_zdm"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "a.txt").write_text("zdm, green", encoding="utf-8")
    return folder.parent


def ended(answer: httpx.Response) -> dict[str, Any]:
    """The task that a request has started, once it has ended."""
    assert answer.status_code in (200, 202), answer.text
    task = TASKS.get(str(answer.json()["id"]))
    until(task.over.is_set)
    return task.facts()


ConfigOf = Callable[..., dict[str, Any]]


@pytest.fixture
def config_of(host: FakeHost, dataset: Path) -> ConfigOf:
    """A config as a client sends it, which calls the base model and the dataset by their names."""

    def make(**changes: Any) -> dict[str, Any]:
        small = {"resolution": [64, 64], "buckets": False}
        return {"base_model": CHECKPOINT, "subsets": [{"folder": "zdm"}], "output_name": "zdm", **small, **changes}

    return make


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The app behind the WebUIs' own server, for as long as the block; its address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)

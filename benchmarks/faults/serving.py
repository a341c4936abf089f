"""The API over HTTP, on a port of this machine."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import uvicorn
from fastapi import FastAPI

from benchmarks.faults.jobs import wait_for
from lora_trainer.api import Access, mount
from lora_trainer.hosts.alone import NoHost
from lora_trainer.jobs.queue import Queue

EVERYBODY_HERE = Access(users=None, gradio_app=None, listening_remotely=False, allowed_remotely=False)


@contextmanager
def serving(queue: Queue) -> Iterator[int]:
    """The API on a port of this machine, until the block ends."""
    app = FastAPI()
    mount(app, queue, None, NoHost(), EVERYBODY_HERE)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started, "the API's server")
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The status and the text of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, f"/lora-trainer/{path}", body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8")

"""The page on a server of its own: gradio, the API, the queue and its supervisor in one process."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.hosts.standalone import Standalone
from lora_trainer.installing import Installation
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.serving.page import Page, add_files
from lora_trainer.ui.tab import build

SHUTDOWN_SECONDS = 1  # for what browsers hold open
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched


@dataclass(frozen=True)
class Door:
    """Where the page is to be had: a socket that listens, and names and passwords where it asks for them."""

    socket: socket.socket
    listening_remotely: bool
    users: Mapping[str, str]


def serve(host: Standalone, queue: Queue, door: Door, ready: Callable[[], None]) -> None:
    """Serves until Ctrl-C or a signal ends it; a worker that runs goes on.

    What training needs is installed while the page is there already; jobs are started after that. `ready` is called
    when the page answers.
    """
    supervisor = Supervisor(queue, host)
    installation = Installation(host.python, supervisor)
    app = Page(app_for(host, queue, supervisor, door, installation))
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS), ready)
    installation.start()
    try:
        server.run([door.socket])
    finally:
        supervisor.close()


def app_for(host: Standalone, queue: Queue, supervisor: Supervisor, door: Door, installation: Installation) -> FastAPI:
    app = FastAPI()
    tab = build()
    with gr.Blocks(theme=gr.themes.Default(**FONTS), title="LoRA trainer", analytics_enabled=False) as page:
        tab.render()
    gr.mount_gradio_app(app, page, "/", **_login(page, door.users))
    root: Any = app.router.routes.pop()  # put back last, as it takes every path
    anybody = door.listening_remotely and not door.users
    access = Access(door.users or None, root.app, door.listening_remotely, allowed_remotely=anybody)
    mount(app, queue, supervisor, host, access, host.datasets, host.models, installation)
    add_files(app)
    app.router.routes.append(root)
    return app


def _login(page: gr.Blocks, users: Mapping[str, str]) -> dict[str, Any]:
    """gradio 4 takes its users with the page, 3 finds them on it."""
    if not users:
        return {}
    page.auth, page.auth_message = list(users.items()), None
    return {"auth": page.auth} if "auth" in inspect.signature(gr.mount_gradio_app).parameters else {}


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

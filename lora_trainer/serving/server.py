"""The page on a server of its own: gradio, the API, the queue and its supervisor in one process."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.hosts.standalone import Standalone
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.packages import PackageProblem
from lora_trainer.serving.page import Page, add_files
from lora_trainer.ui.tab import build

Tell = Callable[[str], None]

SHUTDOWN_SECONDS = 1  # for what browsers hold open
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched


@dataclass(frozen=True)
class Door:
    """Where the page is to be had: a socket that listens, and names and passwords where it asks for them."""

    socket: socket.socket
    listening_remotely: bool
    users: Mapping[str, str]


def serve(
    host: Standalone, queue: Queue, door: Door, set_up: Callable[[Tell], object], ready: Callable[[], None]
) -> None:
    """Serves until Ctrl-C or a signal ends it; a worker that runs goes on.

    `set_up` gets what training needs, and tells how far it is; jobs are started once it is done, while the page is
    there before. `ready` is called when the page answers.
    """
    supervisor = Supervisor(queue, host)
    app = Page(app_for(host, queue, supervisor, door))
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=SHUTDOWN_SECONDS), ready)
    threading.Thread(target=_start_jobs, args=(supervisor, set_up), name="lora-trainer set-up", daemon=True).start()
    try:
        server.run([door.socket])
    finally:
        supervisor.close()


def app_for(host: Standalone, queue: Queue, supervisor: Supervisor, door: Door) -> FastAPI:
    app = FastAPI()
    tab = build()
    with gr.Blocks(theme=gr.themes.Default(**FONTS), title="LoRA trainer", analytics_enabled=False) as page:
        tab.render()
    gr.mount_gradio_app(app, page, "/", **_login(page, door.users))
    root: Any = app.router.routes.pop()  # put back last, as it takes every path
    anybody = door.listening_remotely and not door.users
    access = Access(door.users or None, root.app, door.listening_remotely, allowed_remotely=anybody)
    mount(app, queue, supervisor, host, access, host.datasets, host.models)
    add_files(app)
    app.router.routes.append(root)
    return app


def _login(page: gr.Blocks, users: Mapping[str, str]) -> dict[str, Any]:
    """gradio 4 takes its users with the page, 3 finds them on it."""
    if not users:
        return {}
    page.auth, page.auth_message = list(users.items()), None
    return {"auth": page.auth} if "auth" in inspect.signature(gr.mount_gradio_app).parameters else {}


def _start_jobs(supervisor: Supervisor, set_up: Callable[[Tell], object]) -> None:
    def told(line: str) -> None:
        supervisor.watching = f"Jobs wait until the training packages are installed: {line}"

    try:
        set_up(told)
    except PackageProblem as problem:
        supervisor.watching = str(problem)
    else:
        supervisor.start()


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

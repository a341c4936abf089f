"""The WebUI, AUTOMATIC1111's or Forge's and its kin: the only package that imports its `modules`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.hosts.webui import gpu, lock, options
from lora_trainer.hosts.webui.access import access_of
from lora_trainer.hosts.webui.early import bear_early_requests
from lora_trainer.hosts.webui.host import WebUI
from lora_trainer.jobs.folder import job_folders
from lora_trainer.locks import is_taken
from lora_trainer.packages import ROOT

if TYPE_CHECKING:
    from lora_trainer.installing import Installation
    from lora_trainer.jobs.queue import Queue
    from lora_trainer.jobs.supervisor import Supervisor

JOBS = ROOT / "jobs"
DATASETS = ROOT / "datasets"


@dataclass(frozen=True)
class Running:
    """What lives on when the WebUI reloads its page."""

    host: WebUI
    queue: Queue
    supervisor: Supervisor
    installation: Installation


def register() -> None:
    """Has the WebUI show the tab and the settings, and answer our routes. Called again when it reloads its page."""
    from modules import script_callbacks

    script_callbacks.on_ui_settings(options.add)
    script_callbacks.on_before_ui(prepare)
    script_callbacks.on_ui_tabs(tabs)
    script_callbacks.on_app_started(start)
    if _is_training(options.folder("lora_trainer_jobs", JOBS)):
        gpu.start_without_model()


def prepare() -> None:
    """What must be so before the page is built."""
    lock.spare_token_counters()
    gpu.spare_embeddings()
    bear_early_requests()


def tabs() -> list[tuple[Any, str, str]]:
    from lora_trainer.ui.tab import NAME, TITLE, build

    return [(build(), TITLE, NAME)]


def start(_demo: Any, app: Any) -> None:
    """Puts the routes on the WebUI's app, and again when a setting changes that they heed."""
    options.when_changed(("lora_trainer_open_to_all", "lora_trainer_datasets"), lambda: _mount(app))
    _mount(app)


@cache
def running() -> Running:
    """The queue and what runs it. They begin with the first call."""
    from lora_trainer.installing import Installation
    from lora_trainer.jobs.supervisor import Supervisor

    host, queue = WebUI(), _queue()
    supervisor = Supervisor(queue, host)
    lock.lend(supervisor)
    installation = Installation(host.python, supervisor)
    installation.look()
    return Running(host, queue, supervisor, installation)


def _mount(app: Any) -> None:
    from lora_trainer.api import mount

    ours = running()
    datasets = options.folder("lora_trainer_datasets", DATASETS)
    access = access_of(app)
    mount(app, ours.queue, ours.supervisor, ours.host, access, datasets, installation=ours.installation)


def _queue() -> Queue:
    from lora_trainer.jobs.queue import Queue, QueueFailed

    try:
        return Queue(options.folder("lora_trainer_jobs", JOBS))
    except QueueFailed as problem:
        print(f"LoRA trainer: {problem} Choose another folder for the jobs in the settings; until then it is {JOBS}.")
        return Queue(JOBS)


def _is_training(jobs: Path) -> bool:
    """Whether a worker works there that an earlier start of the WebUI has begun."""
    with suppress(OSError):
        return jobs.is_dir() and any(is_taken(folder.lock) for folder in job_folders(jobs))
    return False

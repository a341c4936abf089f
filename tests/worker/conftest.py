"""Jobs on the small base and the few pictures of the trainer's own tests, and their workers as processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.config import Config
from lora_trainer.jobs.event_log import Event, read_events
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.processes import worker_command
from lora_trainer.jobs.work import Work
from lora_trainer.locks import Lock
from lora_trainer.packages import environment_for_child
from lora_trainer.worker import run
from tests.training.conftest import base, config_of, pictures

__all__ = ["base", "config_of", "pictures"]

ConfigOf = Callable[..., Config]


class Job:
    """A job's folder, and what its workers do there."""

    def __init__(self, folder: JobFolder, config: Config):
        self.folder, self.config = folder, config

    def start(self) -> subprocess.Popen[str]:
        """A worker as the supervisor starts one, whose output can be read."""
        environment = {**environment_for_child(), "OMP_NUM_THREADS": "1"}
        command = worker_command(sys.executable, self.folder.path)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, encoding="utf-8"
        )

    def done(self) -> int:
        """The exit code of a worker that is waited for."""
        with self.start() as process:
            output, _ = process.communicate()
        self.output = output
        return process.returncode

    def events(self) -> list[Event]:
        return read_events(self.folder.events)[0]

    def kinds(self, *of: str) -> list[str]:
        return [event.kind for event in self.events() if not of or event.kind in of]

    def last(self, kind: str) -> dict[str, Any]:
        return [event.facts for event in self.events() if event.kind == kind][-1]


@pytest.fixture
def job_of(config_of: ConfigOf, tmp_path: Path) -> Callable[..., Job]:
    def make(prepare: Any = None, train: bool = True, number: int = 1, **changes: Any) -> Job:
        folder = JobFolder(tmp_path / "jobs" / str(number))
        config = config_of(**changes)
        folder.write(Work(config, prepare, train), 1763650000.0)
        return Job(folder, config)

    return make


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a worker's work be done in this process, which stays alive."""
    held: list[Lock] = []
    monkeypatch.setattr(run, "die_together", lambda: None)
    monkeypatch.setattr(run, "_held", held)
    yield
    for lock in held:
        lock.release()

"""Work for which the host's own Python lacks the packages: done by a process of the worker's Python."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from lora_trainer.api.answers import Refused
from lora_trainer.api.tasks import Task
from lora_trainer.jobs.processes import own_command
from lora_trainer.packages import ROOT, environment_for_child

WINDOWLESS: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows


def told_by(task: Task, python: str, *words: str) -> Iterator[dict[str, Any]]:
    """Each JSON object that `python -m lora_trainer WORDS` prints on a line. The process ends with the task.

    Raises Cancelled, and Refused (503) with the sentence in which the process said what was wrong.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            own_command(python, *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**environment_for_child(), "PYTHONUNBUFFERED": "1"},
            encoding="utf-8",
            creationflags=WINDOWLESS,
        )
        with process:
            task.ending = process.terminate
            try:
                task.check()
                yield from map(json.loads, process.stdout or ())
            finally:
                task.ending = None
                process.terminate()
        task.check()
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace").strip().splitlines()
            raise Refused(503, said[-1] if said else f"The process ended with code {process.returncode}.")

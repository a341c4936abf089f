"""What is being done, and what the server is asked for."""

from __future__ import annotations

import threading


class State:
    def __init__(self) -> None:
        self.job, self.job_count, self.job_no = "", 0, 0
        self.skipped = self.interrupted = self.stopping_generation = False
        self.sampling_step = self.sampling_steps = 0
        self._command: str | None = None
        self._asked = threading.Event()

    def begin(self, job: str = "(unknown)") -> None:
        self.job, self.job_count, self.job_no = job, -1, 0
        self.skipped = self.interrupted = self.stopping_generation = False

    def end(self) -> None:
        self.job, self.job_count = "", 0

    def interrupt(self) -> None:
        self.interrupted = True

    def request_restart(self) -> None:
        self.interrupt()
        self._command = "restart"
        self._asked.set()

    def wait_for_server_command(self, timeout: float | None = None) -> str | None:
        if not self._asked.wait(timeout):
            return None
        self._asked.clear()
        command, self._command = self._command, None
        return command

"""A program with our routes in it that runs as its user has started it."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.request
from contextlib import suppress
from typing import Any

from lora_trainer.jobs.processes import end
from tests.jobs.patience import until

ENDED = ("finished", "failed", "stopped", "interrupted")


class Running:
    """`credentials`: USER:PASSWORD that is sent along with every request."""

    def __init__(self) -> None:
        self.address = self.credentials = ""
        self._process: subprocess.Popen[Any] | None = None

    def kill(self) -> None:
        """Ends it at once, as a crash or a power cut would; its worker goes on."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Ends it, and whatever it still trains."""
        with suppress(OSError):  # it does not answer, or has not come as far as to have our routes
            for job in self.jobs() if self._process else []:
                if job["pid"] and job["status"] not in ENDED:
                    end(job["pid"])
        self.kill()

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What one of our routes answers."""
        return self.request(f"lora-trainer/v1/{path}", method, body)

    def request(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> Any:
        """What any of its routes answers; None for nothing."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, headers=headers, method=method)
        if data:
            request.add_header("Content-Type", "application/json")
        if self.credentials:
            request.add_header("Authorization", f"Basic {base64.b64encode(self.credentials.encode()).decode()}")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=600) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def jobs(self) -> list[dict[str, Any]]:
        return self.ask("jobs")["jobs"]

    def until_status(self, id: int, *statuses: str, seconds: float = 300) -> dict[str, Any]:
        """Waits for the job to come to one of these; returns it. Fails at once where it has failed."""

        def reached() -> bool:
            job = self.ask(f"jobs/{id}")
            assert job["status"] in statuses or job["status"] != "failed", (job["cause"], self.ask(f"jobs/{id}/log"))
            return job["status"] in statuses

        until(reached, seconds, every=0.2)
        return self.ask(f"jobs/{id}")

"""The trainer's own page as a user starts it, in a process of its own, with the gradio that a test asks for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from lora_trainer.commands.serve import LIST
from lora_trainer.jobs.processes import end
from lora_trainer.packages import PARENT_VARIABLE, ROOT, WEB, Folder, install, parent, read_list
from tests.jobs.patience import until

OLD, NEW = "3.41.2", "4.40.0"
FOLDERS = {
    OLD: Folder(WEB, read_list(Path(__file__).with_name("gradio3.txt")), with_dependencies=True),
    NEW: Folder(WEB, read_list(LIST), with_dependencies=True),
}
# The folder goes on this process's path alone: a worker, which inherits PYTHONPATH, has packages of its own.
START = "import sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; from lora_trainer.__main__ import main"
START += "; sys.exit(main())"
ENDED = ("finished", "failed", "stopped", "interrupted")


class Server:
    """`folder`: of the page's models, datasets and jobs; its output lies there in page.log."""

    def __init__(self, gradio: str, folder: Path, *options: str) -> None:
        install(FOLDERS[gradio])
        self.gradio, self.folder, self.options, self.address = gradio, folder, options, ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns once it has said that it answers; started again, it has the same address."""
        port = self.address.rstrip("/").rpartition(":")[2] or "0"
        paths = (str(FOLDERS[self.gradio].path), str(ROOT))
        words = ("serve", "--port", port, "--folder", str(self.folder), *self.options)
        environment = {**os.environ, PARENT_VARIABLE: str(parent()), "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "page.log").open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, *paths, *words],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                encoding="utf-8",
            )
        said = next((found for line in self._process.stdout or () if (found := re.search(r"http://\S+", line))), None)
        assert said, (self.folder / "page.log").read_text(encoding="utf-8")
        self.address = said[0]

    def interrupt(self) -> int:
        """Ctrl-C; returns its exit code."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()
        code, self._process = self._process.returncode, None
        return code

    def kill(self) -> None:
        """Ends it at once, as a crash or a power cut would; its worker goes on."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Ends it, and whatever it still trains."""
        for job in self.jobs() if self._process else []:
            if job["pid"] and job["status"] not in ENDED:
                end(job["pid"])
        self.kill()

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What a route of the API answers, a dictionary."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}lora-trainer/v1/{path}", data, method=method)
        if data:
            request.add_header("Content-Type", "application/json")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)

    def jobs(self) -> list[dict[str, Any]]:
        return self.ask("jobs")["jobs"]

    def until_status(self, id: int, *statuses: str, seconds: float = 120) -> dict[str, Any]:
        """Waits for the job to come to one of these; returns it. Fails at once where it has failed."""

        def reached() -> bool:
            job = self.ask(f"jobs/{id}")
            assert job["status"] in statuses or job["status"] != "failed", (job["cause"], self.ask(f"jobs/{id}/log"))
            return job["status"] in statuses

        until(reached, seconds, every=0.2)
        return self.ask(f"jobs/{id}")

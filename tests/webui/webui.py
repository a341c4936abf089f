"""One WebUI that runs: started, asked, ended."""

from __future__ import annotations

import re
import socket
import subprocess
import urllib.error
from pathlib import Path
from typing import Any

from tests.browser.running import ENDED, Running
from tests.jobs.patience import until
from tests.webui.program import Program

STARTED = "Startup time:"
START_SECONDS = 300.0
NAME = "lora-trainer"
HAS_PROC = Path("/proc/self/status").exists()


class WebUI(Running):
    """`data`: its extensions, models and settings; what it prints lies there in console.log."""

    def __init__(self, program: Program, data: Path) -> None:
        super().__init__()
        self.program, self.data = program, data
        self.console = data / "console.log"
        self.extension = data / "extensions" / NAME
        self._port = 0
        data.mkdir(parents=True, exist_ok=True)

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self, *options: str) -> None:
        """Returns once all of it answers; started again, it has the same address."""
        self._port = self._port or _free_port()
        self.address = f"http://127.0.0.1:{self._port}/"
        words = ["--port", str(self._port), "--data-dir", str(self.data), "--api", *options]
        words += ["--gradio-allowed-path", str(self.program.folder)]  # else Forge's own scripts lie outside --data-dir
        restartable = {"SD_WEBUI_RESTART": "tmp/restart", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        starts = self.starts()
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                [*self.program.command, *words],
                cwd=self.program.folder,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**self.program.environment, **restartable},
            )
        self.until_started(starts)

    def starts(self) -> int:
        """How often it has said that it has started, or has made its page again."""
        return self.said().count(STARTED)

    def said(self) -> str:
        return self.console.read_text(encoding="utf-8", errors="replace") if self.console.is_file() else ""

    def until_started(self, before: int) -> None:
        def started() -> bool:
            assert self._process and self._process.poll() is None, self.said()[-6000:]
            return self.starts() > before

        until(started, START_SECONDS, every=0.1)

    def until_ended(self) -> None:
        """Waits for it to end by itself, as it does to be started again."""
        assert self._process
        self._process.wait(60)
        self._process = None

    def sdapi(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """What one of the WebUI's own routes answers."""
        return self.request(f"sdapi/v1/{path}", method, body)

    def refused(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> int:
        """The status with which a request is refused; 200 where it is not."""
        try:
            self.request(path, method, body, **headers)
        except urllib.error.HTTPError as error:
            return error.code
        except ValueError:  # answered, with something that is no JSON
            return 200
        return 200

    def until_step(self, id: int, step: int, seconds: float = 300) -> None:
        until(lambda: (self.until_status(id, "running", "paused", *ENDED)["step"] or 0) >= step, seconds, every=0.1)

    @property
    def lora_folder(self) -> Path:
        return self.data / "models" / "Lora"

    def resident(self) -> int:
        """The bytes of main memory that it has, without its children's; 0 where that cannot be known."""
        if not HAS_PROC:
            return 0
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc", str(self.pid), "status").read_text(encoding="utf-8"))
        assert found
        return int(found[1]) * 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

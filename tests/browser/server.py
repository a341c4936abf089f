"""The trainer's own page as a user starts it, in a process of its own, with the gradio that a test asks for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from lora_trainer.commands.serve import LIST
from lora_trainer.packages import PARENT_VARIABLE, ROOT, WEB, Folder, install, parent, read_list
from tests.browser.running import Running

OLD, NEW = "3.41.2", "4.40.0"
FOLDERS = {
    OLD: Folder(WEB, read_list(Path(__file__).with_name("gradio3.txt")), with_dependencies=True),
    NEW: Folder(WEB, read_list(LIST), with_dependencies=True),
}
# The folder goes on this process's path alone: a worker, which inherits PYTHONPATH, has packages of its own.
START = "import sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; from lora_trainer.__main__ import main"
START += "; sys.exit(main())"


class Server(Running):
    """`folder`: of the page's models, datasets and jobs; its output lies there in page.log."""

    def __init__(self, gradio: str, folder: Path, *options: str) -> None:
        super().__init__()
        install(FOLDERS[gradio])
        self.gradio, self.folder, self.options = gradio, folder, options

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

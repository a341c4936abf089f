"""The training packages, put in by a process of the Python that trains while the page is there; jobs wait for them."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from lora_trainer.jobs.processes import own_command
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.packages import ROOT, WINDOWLESS, environment_for_child

LINES_KEPT = 100
FINAL = ("missing", "failed", "ready")
# The lines that say how far it is.
TELLING = ("Another ", "Collecting ", "Processing ", "Downloading ", "Building ", "Installing ")


class Installation:
    """`python` is the one that trains; `supervisor` is started as soon as its packages are there, and not before.

    `state` is looking, missing (nobody has asked for them yet), installing, failed or ready. `line` says what is being
    done, what is missing, or what went wrong and what to do. `share` is how much is done, from 0 to 1. `since`: when
    the state was found that is no step on the way, in seconds since 1970.
    """

    def __init__(self, python: str, supervisor: Supervisor) -> None:
        self.state, self.line, self.share, self.since = "looking", "", 0.0, 0.0
        self._python, self._supervisor = python, supervisor
        self._started = False
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._busy = False
        self._lock = threading.Lock()  # of `_busy`, and of the state where that changes

    def look(self) -> None:
        """Finds out in the background whether the packages are there. Nothing where that is known or being done."""
        self._begin("looking", "--look")

    def start(self, again: bool = False) -> None:
        """Installs what is missing, in the background. Nothing where all is there, or is being installed.

        `again`: the packages that are there too, as one may be damaged. Jobs go on meanwhile.
        """
        self._begin("looking" if self.state == "looking" else "installing", *(["--again"] if again else []))

    def facts(self) -> dict[str, Any]:
        """As JSON can say it."""
        shown = ("state", "line", "share", "since")
        return {**{name: getattr(self, name) for name in shown}, "lines": list(self._lines)}

    def _begin(self, state: str, *words: str) -> None:
        with self._lock:
            if self._busy or (self.state == "ready" and "--again" not in words):
                return
            self._busy = True
            self.state, self.line, self.share = state, "", 0.0
        self._lines.clear()
        threading.Thread(target=self._run, args=words, name="lora-trainer set-up", daemon=True).start()

    def _run(self, *words: str) -> None:
        try:
            state, sentence = self._settle(own_command(self._python, "setup", "--json", *words))
        except OSError as error:
            state, sentence = "failed", f"{self._python} cannot be started ({error}). Put that right and start again."
        self._tell({"missing": _waiting(sentence), "failed": sentence}.get(state, ""))
        with self._lock:
            self._busy = False
            self.state, self.line, self.share, self.since = state, sentence, float(state == "ready"), time.time()
            starts = state == "ready" and not self._started
            self._started = self._started or starts
        if starts:
            self._supervisor.start()

    def _tell(self, sentence: str) -> None:
        """Why jobs wait, which they do until they are started the first time."""
        if not self._started:
            self._supervisor.watching = sentence

    def _settle(self, command: list[str]) -> tuple[str, str]:
        """The state in which the process leaves the packages, and a sentence about it. OSError."""
        settled = None
        for told in _told_by(command):
            line = str(told["line"])
            if told.get("state") in FINAL:
                settled = str(told["state"]), line
                continue
            self._lines.append(line)
            self.state, self.share = "installing", float(told.get("share", self.share))
            if line.startswith(TELLING):
                self.line = line.partition(":")[0]  # of the last step, without the names of all packages
                self._tell(_waiting(self.line))
        if settled:
            return settled
        last = self._lines[-1] if self._lines else "no word"
        return "failed", f"The installation ended before its end, and its last line was {last!r}. Start it again."


def _waiting(line: str) -> str:
    return f"Jobs wait until the training packages are installed: {line}"


def _told_by(command: list[str]) -> Iterator[dict[str, Any]]:
    """Each object that the process prints; what else it prints as one with a `line`. OSError."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=environment_for_child(),
        encoding="utf-8",
        errors="replace",
        creationflags=WINDOWLESS,
    ) as child:
        for line in filter(str.strip, child.stdout or ()):
            try:
                told = json.loads(line)
            except ValueError:
                told = None
            yield told if isinstance(told, dict) and "line" in told else {"line": line.strip()}

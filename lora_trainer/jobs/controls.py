"""What a working job is told: a line in a file of its folder for each command, taken by the worker at its next step."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from lora_trainer.jobs.events import Report
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.stops import WAIT_SECONDS, Wishes
from lora_trainer.locks import Lock, is_taken

COMMANDS = ("pause", "resume", "stop", "stop_and_save", "save", "sample")
HOST_GONE_SECONDS = 10.0
SEND_SECONDS = 5.0


def send(folder: JobFolder, command: str, by: str = "user") -> str:
    """Tells a job's worker; returns the command's id, which the event "heeded" repeats once it is taken.

    A job is paused as long as anyone ("user", "host") has paused it and not resumed it. ValueError for a command that
    is none of COMMANDS; OSError, or locks.Taken where others have been writing for seconds.
    """
    if command not in COMMANDS:
        raise ValueError(f"{command!r} is no command; there are {', '.join(COMMANDS)}.")
    name = uuid.uuid4().hex[:8]
    line = json.dumps({"id": name, "command": command, "by": by}) + "\n"
    # Appending is no single step on Windows, and a full disk may take half a line: the next one begins its own.
    with Lock(folder.path / "control.lock").take(SEND_SECONDS), folder.control.open("ab+") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        file.write((b"" if file.read() in (b"", b"\n") else b"\n") + line.encode("utf-8"))
    return name


def clear(folder: JobFolder) -> None:
    """Forgets every command: what an earlier worker did not take is not meant for the next one. OSError."""
    if folder.control.is_file():
        os.truncate(folder.control, 0)


class FileControl:
    """The worker's side: a Control (jobs/stops.py) that reads the job's file, and tells `report` what it takes.

    The host's pause ends by itself where no host has held the queue's supervisor.lock for 10 seconds: it is gone.
    """

    def __init__(self, folder: JobFolder, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._report, self._clock = folder.control, report, clock
        self._host_lock = folder.path.parent / "supervisor.lock"
        self._offset = 0
        self._paused_by: set[str] = set()
        self._stop = False
        self._host_seen = clock()

    def wishes(self) -> Wishes:
        save = sample = False
        for line in self._lines():
            command, by = line["command"], str(line.get("by", "user"))
            save |= command in ("save", "stop_and_save")
            sample |= command == "sample"
            self._stop |= command in ("stop", "stop_and_save")
            if command == "pause":
                self._paused_by.add(by)
                self._host_seen = self._clock()
            elif command == "resume":
                self._paused_by.discard(by)
            self._report("heeded", id=line.get("id", ""), command=command, by=by)
        if "host" in self._paused_by and self._host_is_gone():
            self._paused_by.discard("host")
        return Wishes(self._stop, save, sample, bool(self._paused_by))

    def wait(self) -> None:
        time.sleep(WAIT_SECONDS)

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The whole lines that came since the last look; one that is no command is passed over."""
        try:
            if self._file.stat().st_size <= self._offset:
                return
            with self._file.open("rb") as file:
                file.seek(self._offset)
                lines = file.read().splitlines(keepends=True)
        except OSError:  # nobody has sent anything, or the disk does not answer: the next look tells
            return
        for line in lines:
            if not line.endswith(b"\n"):
                return
            self._offset += len(line)
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("command") in COMMANDS:
                yield found

    def _host_is_gone(self) -> bool:
        try:
            there = is_taken(self._host_lock)
        except OSError:  # it cannot be known
            there = True
        if there:
            self._host_seen = self._clock()
        return self._clock() - self._host_seen >= HOST_GONE_SECONDS

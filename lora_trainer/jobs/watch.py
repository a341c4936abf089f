"""A job that has a worker, seen from outside: whether it lives, what it tells, how it ended."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lora_trainer.jobs.controls import send
from lora_trainer.jobs.endings import Ending, ending, kills_for_memory
from lora_trainer.jobs.event_log import ENDS, Event, end_of_events, read_events
from lora_trainer.jobs.job import ACTIVE, Job
from lora_trainer.jobs.processes import ANOTHER_HAS_IT, is_running, start_detached
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.summary import columns
from lora_trainer.locks import is_taken
from lora_trainer.packages import ROOT, environment_for_child

STARTING_SECONDS = 30.0  # a started worker holds its lock by then
ROW_SECONDS = 1.0  # the job's row is brought up to date no more often
LOG_LINES = 50
_ATTEMPT = "=== attempt"


class Watch:
    """One job between its claim, or its adoption from an earlier supervisor, and its end.

    Every method may raise OSError and QueueFailed, and can then be called again: nothing is lost or counted twice.
    """

    def __init__(self, queue: Queue, job: Job) -> None:
        self.job = job
        self.folder = queue.job_folder(job.id)
        self._queue = queue
        self._pid = job.pid
        self._process: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._had_lock = self._is_gone = False
        self._unstarted: Ending | None = None
        self._offset = self._seen = min(job.seen, end_of_events(self.folder.events))
        self._last: Event | None = None
        self._row: dict[str, Any] = {}
        self._row_due = 0.0
        self._kills = kills_for_memory()
        self._paused: int | None = 0 if job.status == "paused" else None  # bytes freed, while it is paused
        self._heeded = ""
        self._host_pause: str | None = None
        self._host_waits: bool | None = None  # as the worker was told last; None: an earlier supervisor told it

    def start(self, command: Sequence[str]) -> None:
        """Starts the worker. Where that is refused, the job has ended."""
        began = datetime.now().astimezone().isoformat(" ", "seconds")
        environment = {**environment_for_child(), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        try:
            with self.folder.log.open("a", encoding="utf-8") as log:
                log.write(f"{self._headline()} {began}\n")
            self._process = start_detached(command, self.folder.log, ROOT, environment)
        except OSError as error:
            remedy = "Put that right, and resume the job."
            self._unstarted = Ending("failed", "failed", f"The worker could not be started ({error}).", remedy)
            return
        self._pid = self._row["pid"] = self._process.pid
        self._host_waits = False

    def look(self) -> bool:
        """Takes in what the worker has told since the last look; returns whether the worker is alive."""
        alive = self._is_alive()  # asked first: what it told until its end is all there then
        self._is_gone = not alive
        while self._offset < (offset := self._read()):
            self._offset = offset
        if alive and self._row and time.monotonic() >= self._row_due:
            self._write_row(self._seen)
        return alive

    def record_end(self) -> None:
        """Decides how the job ended, once `look` found no worker. One that never had any waits for it again."""
        if not (self._unstarted or self._was_started()):
            self._queue.store.requeue(self.job.id, ACTIVE)
            return
        decided = self._unstarted or self._ending()
        told = {"status": decided.status, "reason": decided.reason, "cause": decided.cause, "remedy": decided.remedy}
        self._row |= {**told, "ended_at": time.time(), "pid": None}
        self._write_row(self._offset)

    def pause_for_host(self, wanted: bool) -> None:
        """Tells the worker that the host needs the GPU, or needs it no more; once for each change."""
        if wanted != self._host_waits:
            told = send(self.folder, "pause" if wanted else "resume", by="host")
            self._host_waits, self._host_pause = wanted, told if wanted else None

    def freed(self) -> int | None:
        """The bytes that the worker took off the GPU for the host; None as long as it works, 0 once it is gone."""
        if self._is_gone:
            return 0
        return self._paused if self._host_pause and self._heeded == self._host_pause else None

    def let_go(self) -> None:
        """The worker goes on without this process, which only collects its exit code."""
        if self._process:
            threading.Thread(target=self._process.wait, daemon=True).start()

    def _is_alive(self) -> bool:
        if self._unstarted:
            return False
        if self._process:
            self._exit_code = self._process.poll()
            if self._exit_code != ANOTHER_HAS_IT:
                return self._exit_code is None
            self._process = self._exit_code = None
        if is_taken(self.folder.lock):
            self._had_lock = True
            return True
        return self._may_be_starting()

    def _may_be_starting(self) -> bool:
        """Whether a worker that an earlier supervisor started can be on its way to the lock."""
        age = time.time() - (self.job.started_at or 0.0)
        is_gone = self._had_lock or self._has_left_a_note() or (self._pid is not None and not is_running(self._pid))
        return 0 <= age < STARTING_SECONDS and not is_gone and self._was_started()

    def _was_started(self) -> bool:
        """Whether anything shows that there was a worker: an earlier supervisor may not have come to start it."""
        if self._pid is not None or self._last or self._had_lock or self._has_left_a_note():
            return True
        log = self._queue.log_tail(self.job.id, LOG_LINES)
        return any(line.startswith(self._headline()) for line in log)

    def _has_left_a_note(self) -> bool:
        """Whether the worker has written who it is."""
        note = self.folder.worker
        return note.is_file() and note.stat().st_mtime >= (self.job.started_at or 0.0)

    def _headline(self) -> str:
        """Begins this attempt's part of the log."""
        return f"{_ATTEMPT} {self.job.attempts},"

    def _read(self) -> int:
        events, offset = read_events(self.folder.events, self._offset)
        for event in events:
            self._take(event)
            self._offset = event.next
            if event.kind not in ENDS:  # one is taken in when the job's end is recorded, by whichever supervisor
                self._seen = event.next
        return offset

    def _take(self, event: Event) -> None:
        self._last = event
        if event.kind == "measured":
            self._queue.measured(event.facts, event.at)
        elif event.kind == "heeded" and event.facts.get("by") == "host":
            self._heeded = str(event.facts.get("id"))
        elif event.kind == "paused":
            self._paused = int(event.facts.get("freed") or 0)
        elif event.kind == "resumed":
            self._paused = None
        told = columns(event.kind, event.facts)
        self._row |= told
        if "status" in told:
            self._row_due = 0.0

    def _write_row(self, seen: int) -> None:
        self._queue.store.change(self.job.id, ACTIVE, **self._row, seen=seen)
        self._row.clear()
        self._row_due = time.monotonic() + ROW_SECONDS

    def _ending(self) -> Ending:
        log = self._queue.log_tail(self.job.id, LOG_LINES)
        begins = [number for number, line in enumerate(log, 1) if line.startswith(_ATTEMPT)]
        short = kills_for_memory() > self._kills
        return ending(self.job.kind, self._exit_code, self._last, log[begins[-1] if begins else 0 :], short)

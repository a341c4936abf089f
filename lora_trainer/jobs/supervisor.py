"""The supervisor: one thread that starts the queue's jobs, watches them and says how they ended. Read `_tick` first."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lora_trainer.files import write_text
from lora_trainer.hosts.host import Host, HostProblem
from lora_trainer.jobs.controls import clear
from lora_trainer.jobs.event_log import end_of_events
from lora_trainer.jobs.job import ACTIVE, Job
from lora_trainer.jobs.processes import worker_command
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.store import QueueFailed
from lora_trainer.jobs.watch import Watch
from lora_trainer.locks import Lock, Taken, is_taken

LEASE_POLL_SECONDS = 0.05
CLOSE_SECONDS = 10.0


class NotFreed(Exception):
    """Why the host can't have the GPU, in a sentence."""


class Supervisor:
    """One for each queue folder: a second one, in any process, only watches, and takes over when the first is gone.

    `poll`: seconds between looks; `command`: how the host's Python becomes the worker of a job's folder. A worker goes
    on when the supervisor ends; the next supervisor adopts it.
    """

    def __init__(
        self, queue: Queue, host: Host, poll: float = 0.5, command: Callable[[str, Path], list[str]] = worker_command
    ) -> None:
        self.watching = ""
        self._queue, self._host, self._poll, self._command = queue, host, poll, command
        self._lock = Lock(queue.supervisor_lock)
        self._about = queue.supervisor_lock.with_suffix(".json")
        self._supervises = False
        self._watch: Watch | None = None
        self._has_gpu = False
        self._disk_trouble = self._host_trouble = ""
        self._leases = 0
        self._starting = False
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="lora-trainer supervisor", daemon=True)

    @property
    def trouble(self) -> str:
        """What went wrong last with disk, database or host, and is tried again; "" where all is well."""
        return " ".join(filter(None, (self._disk_trouble, self._host_trouble)))

    @property
    def current(self) -> int | None:
        """The job that it watches."""
        watch = self._watch
        return watch.job.id if watch else None

    def start(self) -> None:
        """Begins to supervise, or to watch who does: `watching` then says who."""
        self._try(self._take_over)
        self._thread.start()

    def close(self) -> None:
        """Ends the supervision; the worker goes on. A host that takes long over something is not waited for."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    @contextmanager
    def gpu_for_host(self, timeout: float) -> Iterator[int]:
        """The host has the GPU for the block: yields the bytes that the worker freed, 0 where there is no worker.

        No job is started meanwhile. Blocks may be nested, and overlap. NotFreed where the worker has not paused within
        `timeout` seconds, or where this supervisor is not the one that could ask it.
        """
        if not (self._supervises and self._thread.is_alive()):
            raise NotFreed(self.watching or "The queue's supervisor does not run.")
        self._lease(+1)
        try:
            with self._changed:
                if not self._changed.wait_for(self._is_free, timeout):
                    raise NotFreed(f"The job that runs did not free the GPU within {timeout:g} seconds. Try again.")
                watch = self._watch
            yield (watch.freed() if watch else None) or 0
        finally:
            self._lease(-1)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._try(self._tick)
                with self._changed:
                    self._changed.notify_all()
                    urgent = self._leases and not self._is_free()
                self._wake.wait(LEASE_POLL_SECONDS if urgent else self._poll)
                self._wake.clear()
        finally:
            self._supervises = False
            if self._watch:
                self._watch.let_go()
            self._lock.release()
            if not self._closing:
                self._disk_trouble = "The queue's supervisor ended by a fault of its own. Restart, and report it."

    def _try(self, act: Callable[[], object]) -> None:
        """A full disk or a busy database ends nothing: the next tick tries again."""
        try:
            act()
        except (OSError, QueueFailed, Taken) as error:
            self._disk_trouble = f"The queue cannot go on for now: {error}"
        else:
            self._disk_trouble = ""

    def _tick(self) -> None:
        if not (self._supervises or self._take_over()):
            return
        if self._watch is None and (line := self._queue.line()):
            if line[0].status in ACTIVE:  # an earlier supervisor left it, alive or not
                self._watch = Watch(self._queue, line[0])
            else:
                self._start()
        if self._watch is None:
            return
        if self._watch.look():
            self._free_gpu()
            self._watch.pause_for_host(self._leases > 0)
            return
        try:
            self._watch.record_end()
            self._watch = None
        finally:
            self._give_gpu_back()

    def _take_over(self) -> bool:
        """Becomes the supervisor, unless another one is."""
        if is_taken(self._queue.supervisor_lock):
            self.watching = self._who()
            return False
        try:
            self._lock.take()
        except Taken:
            self.watching = self._who()
            return False
        self.watching, self._supervises = "", True
        about = {"name": self._host.name, "pid": os.getpid(), "machine": platform.node()}
        with suppress(OSError):  # it only tells others a name
            write_text(self._about, json.dumps(about))
        return True

    def _who(self) -> str:
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            who = f"{about['name']} (process {about['pid']} on {about['machine']})"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another program"
        return f"The queue in {self._queue.folder} is run by {who}; here it is only shown."

    def _start(self) -> None:
        """Claims the first job and starts its worker, unless the host has the GPU."""
        with self._changed:
            if self._leases:
                return
            self._starting = True  # who asks for the GPU from here on waits for this job
        try:
            if (job := self._claimed()) is None:
                return
            self._watch = Watch(self._queue, job)
        finally:
            self._starting = False
        self._free_gpu()
        self._watch.start(self._command(self._host.python, self._watch.folder.path))

    def _claimed(self) -> Job | None:
        """The next job, with what concerned its earlier workers put away before anyone sees that it runs."""
        store = self._queue.store
        with store.changing():
            job = store.claim(time.time())
            if job is None:
                return None
            folder = self._queue.job_folder(job.id)
            clear(folder)
            store.change(job.id, ACTIVE, seen=end_of_events(folder.events))
            return store.job(job.id)

    def _lease(self, change: int) -> None:
        with self._changed:
            self._leases += change
        self._wake.set()

    def _is_free(self) -> bool:
        """Whether nothing of ours is on the GPU."""
        watch = self._watch
        return not self._starting and (watch is None or watch.freed() is not None)

    def _free_gpu(self) -> None:
        if not self._has_gpu:
            self._has_gpu = True
            self._ask_host(self._host.free_gpu)

    def _give_gpu_back(self) -> None:
        if self._has_gpu:
            self._has_gpu = False
            self._ask_host(self._host.take_gpu_back, self._host.refresh_loras)

    def _ask_host(self, *acts: Callable[[], None]) -> None:
        """A host that can't does not keep a job from running: it may do with the memory that there is."""
        problems = []
        for act in acts:
            try:
                act()
            except HostProblem as problem:
                problems.append(str(problem))
        self._host_trouble = " ".join(problems)

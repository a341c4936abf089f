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
PAUSE_SECONDS = 60.0  # a worker that loads its model does not pause before that is done
CLOSE_SECONDS = 10.0


class NotFreed(Exception):
    """Why nobody here can clear the GPU for the host, in a sentence."""


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
        self._has_gpu = False  # it was taken from the host, and is owed to it
        self._host_is_off = False  # the host has let go of it, and had no lease since
        self._disk_trouble = ""
        self._host_troubles: dict[str, str] = {}  # by what it was asked
        self._leases = 0
        self._starting = False
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="lora-trainer supervisor", daemon=True)

    @property
    def trouble(self) -> str:
        """What went wrong last with disk, database or host, and is tried again; "" where all is well."""
        return " ".join(filter(None, (self._disk_trouble, *self._host_troubles.values())))

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
    def gpu_for_host(self, timeout: float) -> Iterator[int | None]:
        """The host has the GPU for the block: yields the bytes that the worker freed, 0 where there is no worker.

        Yields None where the worker has not paused within `timeout` seconds; it is still asked to, and paused as long
        as the block lasts. No job is started meanwhile, and none goes on before the host has let go of the GPU again.
        Blocks may be nested, and overlap. NotFreed where this supervisor is not the one that could ask the worker.
        """
        if not (self._supervises and self._thread.is_alive()):
            raise NotFreed(self.watching or "The queue's supervisor does not run.")
        with self._changed:
            self._leases += 1
            self._host_is_off = False
        self._wake.set()
        try:
            with self._changed:
                is_free = self._changed.wait_for(self._is_free, timeout)
                watch = self._watch
            yield (watch.freed() if watch else 0) or 0 if is_free else None
        finally:
            with self._changed:
                self._leases -= 1

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
        if self._watch is None:
            self._begin()
        elif self._watch.look():
            self._share_gpu(self._watch)
        else:
            self._end(self._watch)

    def _begin(self) -> None:
        """Goes on with the job that an earlier supervisor left, alive or not, or else starts the first in the line."""
        line = self._queue.line()
        if not line:
            self._give_gpu_back()
        elif line[0].status in ACTIVE:
            self._watch = Watch(self._queue, line[0])
        else:
            self._start()

    def _end(self, watch: Watch) -> None:
        try:
            watch.record_end()
        except (OSError, QueueFailed):  # it is tried again, and nobody knows when the next job can be started
            self._give_gpu_back()
            raise
        self._watch = None
        self._ask_host(self._host.refresh_loras)

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
        self._take_gpu()
        with self._changed:
            if not self._is_ours():
                return
            self._starting = True  # who asks for the GPU from here on waits for this job
        try:
            if (job := self._claimed()) is None:
                return
            self._watch = Watch(self._queue, job)
        finally:
            self._starting = False
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

    def _share_gpu(self, watch: Watch) -> None:
        """The worker pauses while the host has the GPU, and until the host has let go of it."""
        self._take_gpu()
        with self._changed:  # a lease that is asked for here waits until the worker is told, and then for its pause
            watch.pause_for_host(not self._is_ours())

    def _take_gpu(self) -> None:
        """Has the host let go of the GPU, unless it has a lease. One may be asked for meanwhile: see `_is_ours`."""
        with self._changed:
            if self._leases or self._host_is_off:
                return
            self._has_gpu = self._host_is_off = True
        self._ask_host(self._host.free_gpu)

    def _is_ours(self) -> bool:
        """Whether a worker may use the GPU."""
        return self._host_is_off and not self._leases

    def _is_free(self) -> bool:
        """Whether nothing of ours is on the GPU."""
        watch = self._watch
        return not self._starting and (watch is None or watch.freed() is not None)

    def _give_gpu_back(self) -> None:
        if self._has_gpu:
            self._has_gpu = self._host_is_off = False
            self._host_troubles.pop(self._host.free_gpu.__name__, None)
            self._ask_host(self._host.take_gpu_back)

    def _ask_host(self, act: Callable[[], None]) -> None:
        """A host that can't does not keep a job from running: it may do with the memory that there is."""
        self._host_troubles.pop(act.__name__, None)
        try:
            act()
        except HostProblem as problem:
            self._host_troubles[act.__name__] = str(problem)

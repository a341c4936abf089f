"""The WebUI's queue lock, through which everything goes that it does with the GPU: who takes it makes a training pause.

Pictures of its page and its API, upscaling, interrogation and the change of the checkpoint, each waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from lora_trainer.hosts.webui import options
from lora_trainer.jobs.supervisor import PAUSE_SECONDS, NotFreed, Supervisor


class Lending:
    """What the lock's class is given: who acquires it has the GPU until the release.

    The GPU is asked for first: the supervisor takes the lock itself (`plainly`) to have the WebUI free the GPU.
    """

    supervisor: Supervisor
    _lease: ExitStack | None = None  # of who has the lock

    def acquire(self, blocking: bool = True) -> bool:
        lease = _lease(self.supervisor)
        if not super().acquire(blocking):  # type: ignore[misc]
            lease.close()
            return False
        self._lease = lease
        return True

    __enter__ = acquire

    def release(self) -> None:
        lease, self._lease = self._lease, None
        super().release()  # type: ignore[misc]
        if lease:
            lease.close()


def lend(supervisor: Supervisor) -> None:
    """Has whoever takes the lock from here on be given the GPU by the supervisor, those too that imported it before."""
    from modules.call_queue import queue_lock

    queue_lock.supervisor = supervisor
    queue_lock.__class__ = type("LendingLock", (Lending, type(queue_lock)), {})


@contextmanager
def plainly() -> Iterator[None]:
    """The lock for the block, and no training pauses."""
    from modules.call_queue import queue_lock

    taken: Any = super(Lending, queue_lock) if isinstance(queue_lock, Lending) else queue_lock
    taken.acquire()
    try:
        yield
    finally:
        queue_lock.release()


def spare_token_counters() -> None:
    """The counters beside the prompts, which count at each key, take the lock and make no training pause."""
    from modules import ui

    ui.wrap_queued_call = _queued_plainly


def _queued_plainly(act: Callable[..., Any]) -> Callable[..., Any]:
    def queued(*words: Any, **named: Any) -> Any:
        with plainly():
            return act(*words, **named)

    return queued


def _lease(supervisor: Supervisor) -> ExitStack:
    """Open as long as the WebUI has the GPU; without effect where no training is to pause, or none can be asked."""
    lease = ExitStack()
    if not options.value("lora_trainer_pause_to_generate"):
        return lease
    with suppress(NotFreed):
        if lease.enter_context(supervisor.gpu_for_host(PAUSE_SECONDS)) is None:
            print(f"LoRA trainer: the job has not paused in {PAUSE_SECONDS:g} seconds. The WebUI does not wait longer.")
    return lease

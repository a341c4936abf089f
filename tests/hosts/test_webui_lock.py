from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lora_trainer.hosts.webui import lock
from lora_trainer.jobs.supervisor import NotFreed
from tests.jobs.patience import until


class Supervisor:
    """Notes who was lent the GPU, and whether the lock was held then."""

    def __init__(self, queue_lock: Any, freed: int | None = 0, refuses: bool = False) -> None:
        self.told: list[str] = []
        self._lock, self._freed, self._refuses = queue_lock, freed, refuses

    @contextmanager
    def gpu_for_host(self, timeout: float) -> Iterator[int | None]:
        if self._refuses:
            raise NotFreed("Another program runs the queue.")
        self.told.append(f"lent, {'locked' if self._lock.locked() else 'open'}")
        yield self._freed
        self.told.append(f"back, {'locked' if self._lock.locked() else 'open'}")


@pytest.fixture
def queue_lock(modules: SimpleNamespace) -> Any:
    return modules.call_queue.queue_lock


def lent_by(queue_lock: Any, **how: Any) -> Supervisor:
    supervisor: Any = Supervisor(queue_lock, **how)
    lock.lend(supervisor)
    return supervisor


def test_who_takes_the_lock_has_the_gpu_from_before_until_after(queue_lock: Any) -> None:
    """The supervisor itself takes the lock to free the GPU, so nobody waits for the other while he holds it."""
    supervisor = lent_by(queue_lock)
    with queue_lock:
        assert supervisor.told == ["lent, open"] and queue_lock.locked()
    assert supervisor.told == ["lent, open", "back, open"] and not queue_lock.locked()
    queue_lock.acquire()
    queue_lock.release()
    assert len(supervisor.told) == 4


def test_leases_overlap_where_one_waits_for_the_other(queue_lock: Any) -> None:
    supervisor = lent_by(queue_lock)
    queue_lock.acquire()
    second = threading.Thread(target=lambda: queue_lock.__enter__() and queue_lock.__exit__())
    second.start()
    until(lambda: len(supervisor.told) == 2)
    queue_lock.release()
    second.join()
    assert sorted(told[:4] for told in supervisor.told) == ["back", "back", "lent", "lent"]
    assert supervisor.told[:2] == ["lent, open", "lent, locked"]


def test_who_does_not_wait_for_the_lock_gives_the_gpu_back(queue_lock: Any) -> None:
    supervisor = lent_by(queue_lock)
    with lock.plainly():
        assert queue_lock.acquire(blocking=False) is False
    assert supervisor.told == ["lent, locked", "back, locked"]
    with queue_lock:
        pass
    assert len(supervisor.told) == 4


def test_the_supervisor_and_the_token_counters_take_it_plainly(modules: SimpleNamespace, queue_lock: Any) -> None:
    with lock.plainly():
        assert queue_lock.locked()
    supervisor = lent_by(queue_lock)
    lock.spare_token_counters()
    count = modules.ui.wrap_queued_call(lambda text, steps: (len(text), steps, queue_lock.locked()))
    assert count("a prompt", steps=20) == (8, 20, True)
    assert supervisor.told == [] and not queue_lock.locked()


def test_the_lock_is_given_back_whatever_happens(queue_lock: Any) -> None:
    supervisor = lent_by(queue_lock)
    with pytest.raises(ZeroDivisionError), queue_lock:
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), lock.plainly():
        _ = 1 / 0
    assert supervisor.told == ["lent, open", "back, open"] and not queue_lock.locked()


def test_pictures_are_made_where_no_job_can_be_asked(queue_lock: Any) -> None:
    lent_by(queue_lock, refuses=True)
    with queue_lock:
        assert queue_lock.locked()
    assert not queue_lock.locked()


def test_a_picture_is_made_beside_a_job_that_does_not_pause(
    queue_lock: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = lent_by(queue_lock, freed=None)
    with queue_lock:
        assert "has not paused in 60 seconds" in capsys.readouterr().out
    assert supervisor.told == ["lent, open", "back, open"]


def test_no_job_pauses_where_the_settings_say_so(modules: SimpleNamespace, queue_lock: Any) -> None:
    supervisor = lent_by(queue_lock)
    modules.shared.opts.data["lora_trainer_pause_to_generate"] = False
    with queue_lock:
        assert queue_lock.locked() and supervisor.told == []

"""With real processes: workers that do no work (stub_worker.py) and hosts that are killed (stub_host.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.hosts.alone import NoHost
from lora_trainer.hosts.host import Host, HostProblem
from lora_trainer.jobs import watch
from lora_trainer.jobs.event_log import EventWriter, read_events
from lora_trainer.jobs.folder import JobFolder, job_folders
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.processes import end, is_running
from lora_trainer.jobs.queue import Queue, QueueFailed
from lora_trainer.jobs.supervisor import NotFreed, Supervisor
from lora_trainer.jobs.watch import Watch
from lora_trainer.locks import Lock, is_taken
from tests.jobs import stub_host
from tests.jobs.conftest import WorkOf
from tests.jobs.patience import until
from tests.jobs.stub_worker import FREED

HOST = Path(stub_host.__file__)


@dataclass(frozen=True)
class WebUI(NoHost):
    """A host that notes what it is asked, and can refuse it, or take its time to free the GPU."""

    name: str = "a WebUI"
    refuses: str = ""
    asked: list[str] = field(default_factory=list)
    busy: threading.Event = field(default_factory=threading.Event)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what == self.refuses:
            raise HostProblem(f"It cannot {what}. Restart it.")

    def free_gpu(self) -> None:
        self._ask("free")
        until(lambda: not self.busy.is_set())

    def take_gpu_back(self) -> None:
        self._ask("take back")

    def refresh_loras(self) -> None:
        self._ask("refresh")


class House:
    """A queue, supervisors for it, and everything that tests do with its jobs."""

    def __init__(self, queue: Queue, work_of: WorkOf, closing: ExitStack) -> None:
        self.queue, self._work_of, self._closing = queue, work_of, closing
        self._added = 0

    def supervise(self, host: Host | None = None, **options: Any) -> Supervisor:
        supervisor = Supervisor(self.queue, host or NoHost(), **{"poll": 0.01, "command": stub_host.command, **options})
        self._closing.callback(supervisor.close)
        supervisor.start()
        return supervisor

    def supervise_elsewhere(self, *words: str) -> subprocess.Popen[str]:
        """A process that does, once it does."""
        process = subprocess.Popen(
            [sys.executable, str(HOST), str(self.queue.folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._closing.push(process)
        self._closing.callback(process.kill)
        assert process.stdout and process.stdout.readline() == "supervises\n"
        return process

    def add(self) -> int:
        self._added += 1
        return self.queue.add(self._work_of(output_name=f"zdm{self._added}")).id

    def folder(self, id: int) -> JobFolder:
        return self.queue.job_folder(id)

    def tell(self, id: int, what: str, text: str = "") -> None:
        """What stub_worker.py reads."""
        (self.folder(id).path / what).write_text(text, encoding="utf-8")

    def events(self, id: int, kind: str) -> list[dict[str, Any]]:
        return [event.facts for event in read_events(self.folder(id).events, most=10**6)[0] if event.kind == kind]

    def until(self, id: int, status: str, when: Callable[[Job], bool] = lambda job: True) -> Job:
        def has_come() -> bool:
            job = self.queue.job(id)
            assert job.status == status or not job.ended_at, (job, self.queue.log_tail(id))
            return job.status == status and when(job)

        until(has_come)
        return self.queue.job(id)

    def at_work(self, id: int) -> Job:
        """The job once its worker has taken some steps."""
        return self.until(id, "running", lambda job: job.step > 2 and job.pid is not None)

    def end_workers(self) -> None:
        for folder in job_folders(self.queue.folder):
            if is_taken(folder.lock) and folder.worker.exists():
                end(json.loads(folder.worker.read_text(encoding="utf-8"))["pid"])


@pytest.fixture
def house(queue: Queue, work_of: WorkOf, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setattr(watch, "ROW_SECONDS", 0.02)
    with ExitStack() as closing:
        house = House(queue, work_of, closing)
        closing.callback(house.end_workers)  # the last of all
        yield house


def test_a_job_is_carried_through(house: House) -> None:
    host = WebUI()
    supervisor = house.supervise(host)
    assert supervisor.watching == supervisor.trouble == ""
    id = house.add()
    running = house.at_work(id)
    assert (running.attempts, running.steps, running.epochs, running.loss) == (1, 1000, 10, 0.25)
    assert supervisor.current == id
    assert host.asked == ["free"]
    house.tell(id, "finish")
    job = house.until(id, "finished")
    assert job.lora.endswith("stub.safetensors") and job.loss == 0.125
    assert (job.reason, job.cause, job.remedy, job.pid) == ("", "", "", None)
    assert job.created_at <= (job.started_at or 0) <= (job.ended_at or 0) <= time.time()
    assert job.seen == house.folder(id).events.stat().st_size
    until(lambda: host.asked == ["free", "refresh", "take back"])
    until(lambda: supervisor.current is None)
    assert house.folder(id).log.read_text(encoding="utf-8").startswith("=== attempt 1, ")


def test_jobs_run_one_after_the_other(house: House) -> None:
    """And the host has the GPU again after the last."""
    host = WebUI()
    first, second = house.add(), house.add()
    house.tell(second, "finish")
    house.supervise(host)
    house.at_work(first)
    assert house.queue.job(second).status == "queued"
    house.tell(first, "finish")
    ended = [house.until(id, "finished") for id in (first, second)]
    assert (ended[0].ended_at or 0) <= (ended[1].started_at or 0)
    until(lambda: host.asked == ["free", "refresh", "refresh", "take back"])


def test_a_job_that_was_taken_out_while_the_gpu_was_freed_for_it(house: House) -> None:
    host = WebUI()
    host.busy.set()
    house.supervise(host)
    id = house.add()
    until(lambda: host.asked == ["free"])
    assert house.queue.job(id).status == "queued"
    house.queue.delete(id)
    host.busy.clear()
    until(lambda: host.asked == ["free", "take back"])


@pytest.mark.parametrize(("save", "command"), [(False, "stop"), (True, "stop_and_save")])
def test_a_user_pauses_resumes_and_stops(house: House, save: bool, command: str) -> None:
    house.supervise()
    id = house.add()
    house.at_work(id)
    sent = [house.queue.pause(id)]
    paused = house.until(id, "paused")
    sent.append(house.queue.resume(id))
    house.until(id, "running", lambda job: job.step > paused.step)
    sent.append(house.queue.stop(id, save))
    house.until(id, "stopped")
    heeded = house.events(id, "heeded")
    assert [facts["id"] for facts in heeded] == sent
    assert [facts["command"] for facts in heeded] == ["pause", "resume", command]


def test_a_job_is_stopped_while_it_is_paused(house: House) -> None:
    house.supervise()
    id = house.add()
    house.at_work(id)
    house.queue.pause(id)
    house.until(id, "paused")
    house.queue.stop(id)
    house.until(id, "stopped")


def test_a_command_sent_at_once_is_not_lost(house: House) -> None:
    """What an earlier worker did not heed is; what is sent as soon as the job runs is not."""
    house.supervise()
    id = house.add()
    house.at_work(id)
    house.tell(id, "deaf")
    house.queue.stop(id)
    end(house.queue.job(id).pid or 0)
    house.until(id, "interrupted")
    (house.folder(id).path / "deaf").unlink()
    house.queue.resume(id)
    until(lambda: house.queue.job(id).status == "running")
    sent = house.queue.pause(id)
    house.until(id, "paused")
    assert [facts["id"] for facts in house.events(id, "heeded")] == [sent]


def test_a_killed_worker_goes_on_from_its_state(house: House) -> None:
    host = WebUI()
    house.supervise(host)
    id = house.add()
    end(house.at_work(id).pid or 0)
    job = house.until(id, "interrupted")
    assert (job.reason, job.pid, job.ended_at is None) == ("killed", None, False)
    if sys.platform != "win32":
        assert "SIGKILL" in job.cause
    until(lambda: host.asked == ["free", "refresh", "take back"])
    saved = int(house.folder(id).state.read_text(encoding="utf-8"))
    house.queue.resume(id)
    again = house.until(id, "running", lambda job: job.step > saved)
    assert (again.attempts, again.reason, again.cause) == (2, "", "")
    assert house.events(id, "started")[-1]["step"] == saved
    house.tell(id, "finish")
    house.until(id, "finished")


@pytest.mark.parametrize("exit_code", [0, 1, 77])
def test_a_worker_that_ends_without_a_word(house: House, exit_code: int) -> None:
    house.supervise()
    id = house.add()
    house.tell(id, "die", str(exit_code))
    job = house.until(id, "interrupted")
    assert (job.reason, f"exit code {exit_code}" in job.cause) == ("unknown", True)


def test_a_reason_in_the_log_is_one_of_this_attempt(house: House) -> None:
    id = house.add()
    house.folder(id).log.write_text("RuntimeError: CUDA error\n", encoding="utf-8")
    house.tell(id, "die", "1")
    house.supervise()
    assert house.until(id, "interrupted").reason == "unknown"


def test_a_worker_that_cannot_be_started(house: House, tmp_path: Path) -> None:
    host = WebUI(python=str(tmp_path / "no" / "python"))
    house.supervise(host)
    job = house.until(house.add(), "failed")
    assert "could not be started" in job.cause and job.remedy
    until(lambda: host.asked == ["free", "refresh", "take back"])


@pytest.mark.parametrize("what", ["free", "refresh", "take back"])
def test_a_host_that_cannot_does_not_keep_jobs_from_running(house: House, what: str) -> None:
    host = WebUI(refuses=what)
    supervisor = house.supervise(host)
    id = house.add()
    house.at_work(id)
    assert supervisor.trouble == ("It cannot free. Restart it." if what == "free" else "")
    house.tell(id, "finish")
    house.until(id, "finished")
    until(lambda: host.asked == ["free", "refresh", "take back"])
    until(lambda: supervisor.trouble == ("" if what == "free" else f"It cannot {what}. Restart it."))


def test_a_disk_that_refuses_ends_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)

    def refuse(*_: Any, **values: Any) -> bool:
        raise QueueFailed("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(house.queue.store, "change", refuse)
        until(lambda: supervisor.trouble.endswith("The disk is full."))
        house.tell(id, "finish")
        until(lambda: not is_taken(house.folder(id).lock))
        assert supervisor.current == id
    house.until(id, "finished")
    until(lambda: supervisor.trouble == "")


# ---- supervisors that come and go


def test_a_worker_outlives_its_supervisor(house: House) -> None:
    first = house.supervise()
    id = house.add()
    job = house.at_work(id)
    first.close()
    host = WebUI()
    second = house.supervise(host)
    house.until(id, "running", lambda now: now.step > job.step)
    assert second.current == id and host.asked == ["free"]
    house.tell(id, "finish")
    ended = house.until(id, "finished")
    assert (ended.pid, ended.attempts) == (None, 1)
    until(lambda: host.asked == ["free", "refresh", "take back"])
    assert len(house.events(id, "started")) == 1


@pytest.mark.parametrize(
    ("meanwhile", "status"), [("", "running"), ("finish", "finished"), ("die", "interrupted"), ("kill", "interrupted")]
)
def test_a_killed_host_finds_its_job_again(house: House, meanwhile: str, status: str) -> None:
    """In its true state, whatever happened while nothing watched."""
    id = house.add()
    process = house.supervise_elsewhere()
    worker = house.at_work(id)
    process.kill()
    process.wait()
    assert house.queue.job(id).status == "running"
    if meanwhile == "kill":
        end(worker.pid or 0)
    elif meanwhile:
        house.tell(id, meanwhile, "0")
    if meanwhile:
        until(lambda: not is_taken(house.folder(id).lock))
    house.supervise()
    job = house.until(id, status)
    assert job.attempts == len(house.events(id, "started")) == 1
    if status == "running":
        house.tell(id, "finish")
        house.until(id, "finished")


def test_a_host_killed_before_it_started_the_worker(house: House) -> None:
    id = house.add()
    assert house.queue.store.claim(time.time())
    house.supervise()
    assert house.at_work(id).attempts == 2
    assert len(house.events(id, "started")) == 1


def test_a_host_killed_before_the_worker_has_its_lock(house: House) -> None:
    """The worker may be on its way; where its process is known to be gone, the job has ended."""
    id = house.add()
    assert house.queue.store.claim(time.time())
    house.folder(id).log.write_text("=== attempt 1, today\n", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    supervisor = house.supervise()
    until(house.folder(id).control.exists)  # it has taken the worker for alive, and told it that no host waits
    assert house.queue.job(id).status == "running"
    supervisor.close()
    house.queue.store.change(id, ("running",), pid=gone.pid)
    house.supervise()
    house.until(id, "interrupted")


def test_a_machine_that_was_switched_off(house: House) -> None:
    id = house.add()
    assert house.queue.store.claim(time.time() - 3600)
    house.folder(id).log.write_text("=== attempt 1, today\n", encoding="utf-8")
    house.supervise()
    assert "switched off" in house.until(id, "interrupted").cause


def test_a_second_supervisor_only_watches_until_the_first_is_gone(house: House) -> None:
    process = house.supervise_elsewhere()
    second = house.supervise()
    assert "the stub" in second.watching and str(process.pid) in second.watching
    with pytest.raises(NotFreed, match="the stub"), second.gpu_for_host(1):
        pass
    id = house.add()
    house.at_work(id)
    assert second.current is None
    process.kill()
    process.wait()
    until(lambda: second.current == id)
    assert second.watching == ""


def test_two_supervisors_in_one_process(house: House) -> None:
    """As "Reload UI" could make them."""
    first, second = house.supervise(), house.supervise()
    assert first.watching == "" and second.watching
    id = house.add()
    house.at_work(id)
    assert (first.current, second.current) == (id, None)
    assert len(house.events(id, "started")) == 1


def test_a_job_that_another_worker_has(house: House) -> None:
    """Two never work on one; the second goes, and the first is watched."""
    id = house.add()
    lock = Lock(house.folder(id).lock).take()
    house.supervise()
    second = until(lambda: house.queue.job(id).pid) or 0
    until(lambda: not is_running(second))  # which could still take the lock, once that is free
    with subprocess.Popen([sys.executable, str(stub_host.STUB), str(house.folder(id).path)]) as third:
        assert third.wait() == 3
    assert house.queue.job(id).status == "running"
    lock.release()
    house.until(id, "interrupted")


def test_an_end_that_was_seen_but_not_recorded(house: House) -> None:
    """The host is killed while the worker, which has told its end, is about to go."""
    id = house.add()
    house.tell(id, "linger")
    house.tell(id, "finish")
    process = house.supervise_elsewhere()
    house.until(id, "running", lambda job: bool(job.lora))
    process.kill()
    process.wait()
    (house.folder(id).path / "linger").unlink()
    until(lambda: not is_taken(house.folder(id).lock))
    house.supervise()
    house.until(id, "finished")


def test_an_earlier_end_is_not_this_one(house: House) -> None:
    """A stopped job goes on, and its worker is killed before it says anything."""
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)
    house.queue.stop(id)
    house.until(id, "stopped")
    supervisor.close()
    house.queue.resume(id)
    with EventWriter(house.folder(id).events) as report:
        report("stopped", step=1, steps=2)  # as of a job that is stopped in the queue
    house.supervise(command=lambda python, folder: [python, "-c", "import sys; sys.exit(9)"])
    assert house.until(id, "interrupted").attempts == 2


def test_a_watch_takes_each_measurement_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the queue refuses the second one at first."""
    kept: list[int] = []
    refused = iter([False, True, False, False])

    def measured(facts: dict[str, Any], at: float) -> None:
        if next(refused):
            raise QueueFailed("The disk is full.")
        kept.append(facts["number"])

    id = house.add()
    job = house.queue.store.claim(time.time())
    assert job
    with EventWriter(house.folder(id).events) as report:
        for number in range(3):
            report("measured", number=number)
    monkeypatch.setattr(house.queue, "measured", measured)
    watched = Watch(house.queue, job)
    with pytest.raises(QueueFailed):
        watched.look()
    watched.look()
    watched.look()
    assert kept == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_supervisor_with_a_fault_says_so_and_makes_room(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first = house.supervise()
    with monkeypatch.context() as patch:
        patch.setattr(house.queue, "line", lambda: 1 / 0)
        until(lambda: "fault of its own" in first.trouble)
    second = house.supervise()
    house.at_work(house.add())
    assert second.watching == "" and first.current is None


# ---- the GPU for the host


def test_the_host_has_the_gpu_for_a_while(house: House) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)
    for _ in range(3):
        with supervisor.gpu_for_host(30) as freed:
            assert freed == FREED
            steps = len(house.events(id, "progress"))
            house.until(id, "paused")
            assert len(house.events(id, "progress")) == steps
        house.until(id, "running")
        until(lambda: len(house.events(id, "progress")) > steps)  # noqa: B023


def test_leases_are_counted(house: House) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)
    with supervisor.gpu_for_host(30) as freed:
        with supervisor.gpu_for_host(30) as again:
            assert freed == again == FREED
        until(lambda: house.queue.job(id).status == "paused")
        assert len(house.events(id, "heeded")) == 1
    house.until(id, "running")
    assert [facts["command"] for facts in house.events(id, "heeded")] == ["pause", "resume"]


def test_leases_may_overlap(house: House) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)
    together = threading.Barrier(4)
    freed = []

    def lease() -> None:
        with supervisor.gpu_for_host(30) as bytes_freed:
            freed.append(bytes_freed)
            together.wait(30)

    threads = [threading.Thread(target=lease) for _ in range(3)]
    for thread in threads:
        thread.start()
    together.wait(30)
    for thread in threads:
        thread.join()
    assert freed == [FREED] * 3
    house.until(id, "running")


def test_a_job_that_the_user_paused_stays_paused(house: House) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.at_work(id)
    house.queue.pause(id)
    house.until(id, "paused")
    with supervisor.gpu_for_host(30) as freed:
        assert freed == FREED
    until(lambda: [facts["command"] for facts in house.events(id, "heeded")] == ["pause", "pause", "resume"])
    house.until(id, "paused")
    assert not house.events(id, "resumed")


def test_no_job_begins_while_the_host_has_the_gpu(house: House) -> None:
    host = WebUI()
    supervisor = house.supervise(host)
    with supervisor.gpu_for_host(30) as freed:
        assert freed == 0
        id = house.add()
        ticks = iter(range(10))
        until(lambda: next(ticks, None) is None)
        assert house.queue.job(id).status == "queued" and not host.asked
    house.at_work(id)


def test_a_worker_that_does_not_pause_in_time(house: House) -> None:
    """It is paused as soon as it listens, and as long as the host has the GPU."""
    supervisor = house.supervise()
    id = house.add()
    house.tell(id, "deaf")
    house.at_work(id)
    with supervisor.gpu_for_host(0.1) as freed:
        assert freed is None
        (house.folder(id).path / "deaf").unlink()
        house.until(id, "paused")
    house.until(id, "running")
    assert [facts["command"] for facts in house.events(id, "heeded")] == ["pause", "resume"]


def commands(house: House, id: int) -> list[str]:
    return [facts["command"] for facts in house.events(id, "heeded")]


def test_the_host_lets_go_of_the_gpu_before_the_job_goes_on(house: House) -> None:
    """It has used it, and then loads nothing more."""
    host = WebUI()
    supervisor = house.supervise(host)
    id = house.add()
    house.at_work(id)
    host.busy.set()
    with supervisor.gpu_for_host(30):
        assert host.asked == ["free"]
    until(lambda: host.asked == ["free", "free"])
    assert commands(house, id) == ["pause"]
    host.busy.clear()
    until(lambda: commands(house, id) == ["pause", "resume"])
    assert host.asked == ["free", "free"]


def test_a_lease_while_the_host_lets_go_of_the_gpu(house: House) -> None:
    """It is had at once, and the job stays paused until the host has let go once more."""
    host = WebUI()
    supervisor = house.supervise(host)
    id = house.add()
    house.at_work(id)
    host.busy.set()
    with supervisor.gpu_for_host(30):
        pass
    until(lambda: host.asked == ["free", "free"])
    with supervisor.gpu_for_host(0) as freed:
        assert freed == FREED
    with supervisor.gpu_for_host(0) as freed:
        host.busy.clear()
        ticks = iter(range(10))
        until(lambda: next(ticks, None) is None)
        assert freed == FREED and commands(house, id) == ["pause"]
    until(lambda: commands(house, id) == ["pause", "resume"])
    assert host.asked == ["free", "free", "free"]


def test_leases_never_meet_a_worker_at_work(house: House) -> None:
    """However their beginnings fall together with what the supervisor does."""
    supervisor = house.supervise(WebUI())
    id = house.add()
    house.at_work(id)
    for _ in range(30):
        with supervisor.gpu_for_host(30) as freed:
            assert freed == FREED
            for _ in range(2):
                assert read_events(house.folder(id).events, most=10**6)[0][-1].kind == "paused"
                ticks = iter(range(3))
                until(lambda: next(ticks, None) is None)  # noqa: B023
    house.until(id, "running")


def test_the_host_has_the_gpu_before_a_job_that_is_about_to_begin(house: House) -> None:
    host = WebUI()
    host.busy.set()
    supervisor = house.supervise(host)
    id = house.add()
    until(lambda: host.asked == ["free"])
    with supervisor.gpu_for_host(0) as freed:
        assert freed == 0
        host.busy.clear()
        ticks = iter(range(10))
        until(lambda: next(ticks, None) is None)
        assert house.queue.job(id).status == "queued"
    house.at_work(id)
    assert host.asked == ["free", "free"]


def test_a_worker_whose_end_cannot_be_recorded_keeps_nothing_from_the_host(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = WebUI()
    supervisor = house.supervise(host)
    id = house.add()
    house.at_work(id)

    def refuse(*_: Any, **values: Any) -> bool:
        raise QueueFailed("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(house.queue.store, "change", refuse)
        house.tell(id, "finish")
        until(lambda: host.asked == ["free", "take back"])
        with supervisor.gpu_for_host(0) as freed:
            assert freed == 0
    house.until(id, "finished")


def test_a_job_that_ends_leaves_the_gpu(house: House) -> None:
    supervisor = house.supervise()
    id = house.add()
    house.tell(id, "deaf")
    job = house.at_work(id)
    threading.Timer(0.1, end, (job.pid,)).start()
    with supervisor.gpu_for_host(30) as freed:
        assert freed == 0
        assert house.queue.job(id).status == "interrupted"


def test_a_host_that_died_while_it_had_the_gpu(house: House) -> None:
    """Its successor has not asked for anything, so the job goes on."""
    id = house.add()
    process = house.supervise_elsewhere("lease")
    house.at_work(id)
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == f"{FREED}\n"
    process.kill()
    process.wait()
    step = len(house.events(id, "progress"))
    house.supervise()
    house.until(id, "running", lambda job: job.step > step)


def test_who_does_not_run_gives_nothing(house: House) -> None:
    supervisor = house.supervise()
    supervisor.close()
    with pytest.raises(NotFreed, match="does not run"), supervisor.gpu_for_host(1):
        pass

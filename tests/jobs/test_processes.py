"""With real processes, killed for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lora_trainer import __version__
from lora_trainer.jobs.processes import end, is_running, start_detached, worker_command
from lora_trainer.packages import ROOT
from tests.jobs.patience import until

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups are POSIX's")
# Prints the pids of itself and of its child, which would sleep for long.
WITH_CHILD = (
    "import os, subprocess, sys, time\n"
    "from lora_trainer.jobs.processes import die_together\n"
    "{before}\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
    "{after}\n"
)


class Started:
    """Starts Python code as workers are started; whatever is left is ended after the test."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, code: str) -> subprocess.Popen[bytes]:
        process = start_detached([sys.executable, "-c", code], self.log, ROOT, os.environ)
        self._processes.append(process)
        return process

    def pids(self, count: int = 2) -> list[int]:
        """What it has printed, once it has."""
        return [int(word) for word in until(lambda: self._words(count))]

    def _words(self, count: int) -> list[str]:
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        return text.split() if text.endswith("\n") and len(text.split()) == count else []

    def end(self) -> None:
        for process in self._processes:
            end(process.pid)
            process.kill()
            process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    started = Started(tmp_path)
    yield started
    started.end()


def is_there(pid: int) -> bool:
    """As psutil sees it; a process that nobody has waited for yet is gone."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_what_it_prints_is_appended_to_its_log(start: Started) -> None:
    start.log.write_text("before\n", encoding="utf-8")
    process = start("import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(7)")
    assert process.wait() == 7
    assert start.log.read_text(encoding="utf-8").splitlines() == ["before", "out", "err"]


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start_detached([str(tmp_path / "nothing")], tmp_path / "log.txt", tmp_path, os.environ)


def test_it_inherits_no_open_file(start: Started, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w", encoding="utf-8") as file:
        os.set_inheritable(file.fileno(), True)
        process = start(
            f"import os\ntry: os.fstat({file.fileno()})\nexcept OSError: raise SystemExit(0)\nraise SystemExit(1)"
        )
        code = process.wait()
    assert code == 0


@posix
def test_it_outlives_whoever_started_it(start: Started) -> None:
    """The starter is killed with its whole group, as a closed terminal does it."""
    code = (
        "import os, subprocess, sys, time; from pathlib import Path\n"
        "from lora_trainer.jobs.processes import start_detached\n"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "process = start_detached(sleeper, Path(os.devnull), Path.cwd(), os.environ)\n"
        "print(os.getpid(), process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    starter = start(code)
    _, sleeper = start.pids()
    try:
        os.killpg(starter.pid, signal.SIGKILL)
        assert starter.wait() == -signal.SIGKILL
        assert is_there(sleeper) and os.getsid(sleeper) == sleeper
        assert is_running(sleeper)
    finally:
        end(sleeper)
    until(lambda: not is_there(sleeper))


@pytest.mark.parametrize("how", ["killed", "ended", "raised"])
def test_children_die_with_a_worker(start: Started, how: str) -> None:
    after = {"killed": "time.sleep(600)", "ended": "", "raised": "raise SystemExit(3)"}[how]
    worker = start(WITH_CHILD.format(before="die_together()", after=after))
    pid, child = start.pids()
    assert pid == worker.pid
    if how == "killed":
        assert is_there(child)
        worker.kill()
    code = worker.wait()
    assert how == "killed" or code == (3 if how == "raised" else 0)
    until(lambda: not is_there(child))


def test_a_worker_comes_to_its_own_end_first(start: Started) -> None:
    """What Python does on its way out, even after it has dropped its modules, is not cut off."""
    code = (
        "import os, sys, time; from lora_trainer.jobs.processes import die_together\n"
        "die_together()\n"
        "class Slow:\n"
        "    def __del__(self, sleep=time.sleep, say=os.write): sleep(0.5); say(1, b'done')\n"
        "sys.slow = Slow()\n"
        "raise SystemExit(5)\n"
    )
    assert start(code).wait() == 5
    assert start.log.read_text(encoding="utf-8") == "done"


@posix
def test_a_forked_child_dies_with_its_worker(start: Started) -> None:
    """It holds whatever its worker had open, and so would hide the worker's end from who waits for a pipe to close."""
    worker = start(
        "import os, time; from lora_trainer.jobs.processes import die_together\n"
        "die_together()\n"
        "child = os.fork()\n"
        "if child: print(os.getpid(), child, flush=True)\n"
        "time.sleep(600)\n"
    )
    _, child = start.pids()
    worker.kill()
    worker.wait()
    until(lambda: not is_there(child))


@posix
def test_without_it_children_live_on(start: Started) -> None:
    """So the tests above show something."""
    worker = start(WITH_CHILD.format(before="", after="time.sleep(600)"))
    _, child = start.pids()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert is_there(child)
    os.killpg(worker.pid, signal.SIGKILL)
    until(lambda: not is_there(child))


@posix
def test_a_process_in_the_foreground_leaves_its_group_alone() -> None:
    """It shares it with whoever started it, here the tests."""
    code = WITH_CHILD.format(before="die_together()", after="child.kill(); child.wait()")
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_ending_takes_the_children_along(start: Started) -> None:
    before = "die_together()" if sys.platform == "win32" else ""
    worker = start(WITH_CHILD.format(before=before, after="time.sleep(600)"))
    pid, child = start.pids()
    assert is_running(pid)
    end(pid)
    worker.wait()
    until(lambda: not is_there(child))
    until(lambda: not is_running(pid))
    end(pid)  # once more is fine


@pytest.mark.parametrize("isolated", [False, True])
def test_any_python_becomes_a_worker(tmp_path: Path, isolated: bool) -> None:
    """`-I -S`: one that finds nothing by itself, as an embedded one does."""
    python, *rest = worker_command(sys.executable, tmp_path / "job")
    assert rest[-2:] == ["worker", str(tmp_path / "job")]
    command = [python, *(["-I", "-S"] if isolated else []), *rest[:-2], "--version"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert run.stdout.strip() == __version__, run.stderr

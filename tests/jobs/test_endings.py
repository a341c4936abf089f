"""How processes end is taken from processes that end so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lora_trainer.jobs import endings
from lora_trainer.jobs.endings import Ending, ending, kills_for_memory
from lora_trainer.jobs.event_log import ENDS, Event
from lora_trainer.jobs.job import STATUSES

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def event(kind: str, **facts: str) -> Event:
    return Event(kind, 1.0, facts, 100)


def ended(code: str) -> Ending:
    """How a worker ends that runs this, writes no event and is watched."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    return ending("train", run.returncode, None, run.stdout.splitlines())


@pytest.mark.parametrize(
    ("kind", "told", "status"),
    [
        ("train", "finished", "finished"),
        ("train", "stopped", "stopped"),
        ("prepare", "prepared", "finished"),
        ("prepare", "stopped", "stopped"),
        ("train", "failed", "failed"),
    ],
)
@pytest.mark.parametrize("exit_code", [None, 0, 1, -9])
def test_what_the_worker_told_counts(kind: str, told: str, status: str, exit_code: int | None) -> None:
    """However its process ends after that."""
    assert ending(kind, exit_code, event(told), ["CUDA error"], short_of_memory=True).status == status


def test_every_end_is_a_status() -> None:
    assert {ending("prepare", 0, event(kind), []).status for kind in ENDS} <= set(STATUSES)


def test_a_failure_keeps_its_words() -> None:
    told = event("failed", reason="nan", cause="The loss became nan.", remedy="Lower the learning rate.")
    assert ending("train", 1, told, []) == Ending("failed", "nan", "The loss became nan.", "Lower the learning rate.")
    assert ending("train", 1, event("failed"), []) == Ending("failed", "", "", "")


@pytest.mark.parametrize("last", [None, event("progress"), event("saved"), event("prepared")])
def test_a_training_without_a_word_is_interrupted(last: Event | None) -> None:
    """Its dataset may have been prepared before."""
    found = ending("train", None, last, ["step 3"])
    assert (found.status, found.reason) == ("interrupted", "killed")
    assert "switched off" in found.cause and "Resume" in found.remedy


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_a_signal_from_outside(name: str) -> None:
    found = ended(f"import os, signal; os.kill(os.getpid(), signal.{name})")
    assert (found.status, found.reason) == ("interrupted", "killed")
    assert name in found.cause


@posix
@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.abort()", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "SIGBUS"),
    ],
)
def test_a_crash(code: str, name: str) -> None:
    found = ended(code)
    assert (found.status, found.reason) == ("interrupted", "crashed")
    assert name in found.cause and "driver" in found.remedy


@posix
def test_a_crash_that_the_log_explains() -> None:
    """As C++ ends a program."""
    found = ended("import os; os.write(2, b'what(): CUDA error: device-side assert triggered\\n'); os.abort()")
    assert (found.status, found.reason) == ("interrupted", "driver")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_package_that_is_not_there", "missing_package"),
        ("from json import something_that_is_not_there", "missing_package"),
        ("bytearray(2**62)", "out_of_memory"),
        ("import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", "disk_full"),
    ],
)
def test_a_worker_that_gave_up(code: str, reason: str) -> None:
    found = ended(code)
    assert (found.status, found.reason) == ("failed", reason)
    assert found.cause.endswith(".") and found.remedy.endswith(".")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out_of_memory"),
        ("RuntimeError: MPS backend out of memory (MPS allocated: 17 GB)", "out_of_memory"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "out_of_memory"),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", "driver"),
        ("RuntimeError: The NVIDIA CUDA driver on your system is too old", "driver"),
        ("RuntimeError: HIP error: unspecified launch failure", "driver"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "driver"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "out_of_memory"),
        ("RuntimeError: DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.", "out_of_memory"),
        ("OSError: [WinError 1455] The paging file is too small for this operation to complete.", "out_of_memory"),
        ("ImportError: DLL load failed while importing _C", "missing_package"),
        ("The training packages are not installed in packages. Run `python -m lora_trainer setup`.", "missing_package"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk_full"),
    ],
)
def test_messages_of_torch_and_systems(line: str, reason: str) -> None:
    assert ending("train", 1, None, ["step 1", "Traceback (most recent call last):", line]).reason == reason


def test_only_the_logs_end_counts() -> None:
    """A package that does without another one says so at its start, and goes on."""
    warning = "ModuleNotFoundError: No module named 'triton'"
    assert ending("train", None, None, [warning, *(f"step {step}" for step in range(5))]).reason == "killed"
    assert ending("train", -9, None, [warning]).reason == "killed"
    assert ending("train", 1, None, [warning, *(f"step {step}" for step in range(50))]).reason == "unknown"


@pytest.mark.parametrize("exit_code", [0, 1, 2, 77])
def test_an_exit_that_nothing_explains(exit_code: int) -> None:
    found = ending("train", exit_code, None, [])
    assert (found.status, found.reason) == ("interrupted", "unknown")
    assert f"exit code {exit_code}" in found.cause and "log" in found.remedy


@pytest.mark.parametrize(
    ("exit_code", "reason", "word"),
    [
        (3221225477, "crashed", "access violation"),
        (3221226505, "crashed", "fail-fast"),
        (3221225725, "crashed", "stack overflow"),
        (3221225786, "killed", "Ctrl-C"),
        (3221225495, "out_of_memory", "memory"),
        (3221225781, "missing_package", "package"),
    ],
)
def test_windows_has_codes_of_its_own(exit_code: int, reason: str, word: str) -> None:
    """As decimal numbers, in which people search for them."""
    found = ending("train", exit_code, None, [])
    assert (found.status, found.reason) == ("interrupted", reason)
    assert word in found.cause


def test_a_kill_for_want_of_memory() -> None:
    for exit_code in (None, -9):
        assert ending("train", exit_code, None, [], short_of_memory=True).reason == "out_of_memory"
    assert ending("train", -15, None, [], short_of_memory=True).reason == "killed"


def test_the_systems_count_of_such_kills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(endings, "_COUNTS_OF_LINUX", counts)
    assert kills_for_memory() == 0
    counts.write_text("nr_free_pages 12\npgsteal 4\noom_kill 3\noom_kill_other 9\n", encoding="ascii")
    assert kills_for_memory() == 3

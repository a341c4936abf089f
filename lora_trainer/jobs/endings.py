"""How a job ended: as its worker's last event says or, where it says nothing, as what else is known tells."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.jobs.event_log import ENDS, Event
from lora_trainer.packages import DAMAGED

Known = tuple[str, str, str]  # reason, cause, remedy

_GAVE_UP = (1, 2)  # exit codes of a worker that failed by itself; one that was ended on Windows can have them, too
_KILLED = -9
_LAST_LINES, _VERY_LAST_LINES = 40, 3
_COUNTS_OF_LINUX = Path("/proc/vmstat")


@dataclass(frozen=True)
class Ending:
    """`status`: finished, stopped, failed or interrupted; `cause` and `remedy`: sentences, "" where all is well.

    `reason` is a word for programs: one of the worker's (see worker/reasons.py), or crashed, killed, unknown.
    """

    status: str
    reason: str = ""
    cause: str = ""
    remedy: str = ""


_RESUME = "Resume the job: it goes on from its last saved state."
_OUT_OF_MEMORY = (
    "out_of_memory",
    "The computer's memory did not suffice.",
    f"Close other programs, or choose a smaller batch or resolution. {_RESUME}",
)
_MISSING_PACKAGE = (
    "missing_package",
    "A package that training needs is missing or damaged.",
    f"{DAMAGED} {_RESUME}",
)
_GPU_OUT_OF_MEMORY = (
    "out_of_memory",
    "The GPU's memory did not suffice.",
    f"Close other programs that use the GPU, or choose a smaller batch or resolution. {_RESUME}",
)
_DISK_FULL = ("disk_full", "The disk is full.", f"Make room. {_RESUME}")
_DRIVER = ("driver", "The GPU or its driver failed.", f"Restart the computer or update the driver. {_RESUME}")
_IN_THE_LOG: tuple[tuple[str, Known], ...] = (  # the first that matches
    (r"No space left on device|not enough space on the disk|Disk quota exceeded", _DISK_FULL),
    (r"packages are not installed|ModuleNotFoundError|ImportError|DLL load failed", _MISSING_PACKAGE),
    (r"(CUDA|HIP|MPS backend) out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", _GPU_OUT_OF_MEMORY),
    (r"\bMemoryError\b|bad_alloc|[Cc]an(no|')t allocate memory|not enough memory|WinError 1455", _OUT_OF_MEMORY),
    (r"CUDA (error|driver|initialization)|cudaError|CUDNN_STATUS|CUBLAS_STATUS|NVML|HIP error|hipError", _DRIVER),
)
_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
_WINDOWS_CRASHES = {
    0xC0000005: "access violation",
    0xC000001D: "illegal instruction",
    0xC00000FD: "stack overflow",
    0xC0000374: "damaged heap",
    0xC0000409: "fail-fast",
}
_WINDOWS_OUT_OF_MEMORY = (0xC0000017, 0xC000012D)
_WINDOWS_MISSING_LIBRARY = (0xC0000135, 0xC0000142)
_WINDOWS_INTERRUPTED = 0xC000013A


def ending(
    kind: str, exit_code: int | None, last: Event | None, log: Sequence[str], short_of_memory: bool = False
) -> Ending:
    """How a job of this kind ("train", "prepare" or "grid") ended.

    `exit_code`: the worker's, as subprocess gives it, None where it is not known; `last`: the last event since the
    worker began; `log`: its last lines; `short_of_memory`: the system killed some process for memory meanwhile.
    """
    if last and last.kind in ENDS and not (last.kind == "prepared" and kind == "train"):
        return _as_told(last)
    crash = _crash(exit_code)
    lines = log[-_LAST_LINES if crash or exit_code in _GAVE_UP else -_VERY_LAST_LINES :]
    from_log = next((known for pattern, known in _IN_THE_LOG if any(re.search(pattern, line) for line in lines)), None)
    if from_log and exit_code in _GAVE_UP:
        return Ending("failed", *from_log)
    if short_of_memory and exit_code in (None, _KILLED):
        return Ending("interrupted", *_OUT_OF_MEMORY)
    return Ending("interrupted", *(_from_outside(exit_code) or from_log or _unsaid(exit_code, crash)))


def kills_for_memory() -> int:
    """How many processes Linux has killed since its start because memory ran out; 0 on other systems."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _COUNTS_OF_LINUX.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _as_told(last: Event) -> Ending:
    told = (last.facts.get(name) or "" for name in ("reason", "cause", "remedy"))
    return Ending("finished" if last.kind == "prepared" else last.kind, *map(str, told))


def _crash(exit_code: int | None) -> str:
    """What the processor or the C library ended the worker for, or ""."""
    name = _signal(exit_code)
    return name if name in _CRASHES else _WINDOWS_CRASHES.get(exit_code or 0, "")


def _signal(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return ""
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def _from_outside(exit_code: int | None) -> Known | None:
    """What the exit code alone tells, where the worker is not to blame."""
    if exit_code in _WINDOWS_OUT_OF_MEMORY:
        return _OUT_OF_MEMORY
    if exit_code in _WINDOWS_MISSING_LIBRARY:
        return _MISSING_PACKAGE
    name = "Ctrl-C" if exit_code == _WINDOWS_INTERRUPTED else _signal(exit_code)
    if name and name not in _CRASHES:
        return "killed", f"The worker was ended from outside ({name}).", _RESUME
    return None


def _unsaid(exit_code: int | None, crash: str) -> Known:
    if crash:
        remedy = f"{_RESUME} Where it happens again, update the driver of the GPU."
        return "crashed", f"The worker crashed ({crash}).", remedy
    if exit_code is None:
        cause = "The worker is gone and did not say why: it was killed, or the computer was switched off."
        return "killed", cause, _RESUME
    return "unknown", f"The worker ended with exit code {exit_code} and did not say why.", f"See its log. {_RESUME}"

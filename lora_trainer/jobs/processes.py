"""Workers as processes: started so that they outlive the host, ended with all their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lora_trainer.packages import ROOT

ANOTHER_HAS_IT = 3  # the exit code of a worker that finds its job's lock taken
# An embedded Python, as in the WebUI's package for Windows, looks neither at PYTHONPATH nor into the current folder.
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lora_trainer.__main__ import main; sys.exit(main())"
# Runs in the worker's process group: waits until the worker is gone, then ends what is left of the group, itself too.
# The parent is looked at besides the pipe, as a forked child of the worker may hold the pipe's other end.
_GUARD = (
    "import os, select, signal, sys\n"
    "worker = int(sys.argv[1])\n"
    "while os.getppid() == worker and not select.select([0], [], [], 1)[0]: pass\n"
    "os.killpg(0, signal.SIGKILL)\n"
)
_kept: list[object] = []  # what lives as long as this process


def worker_command(python: str, folder: Path) -> list[str]:
    """How the interpreter `python` becomes the worker of the job in `folder`."""
    return own_command(python, "worker", str(folder))


def own_command(python: str, *words: str) -> list[str]:
    """How the interpreter `python` runs `python -m lora_trainer WORDS`, from any folder."""
    return [python, "-u", "-X", "faulthandler", "-c", _START, str(ROOT), *words]  # an embedded one reads no variables


def start_detached(
    command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts a process that goes on when this one ends; what it prints is appended to `log`.

    It leads a session (on Windows a process group without a window) of its own and inherits no open file. OSError
    where it can't be started.
    """
    with log.open("ab") as output:

        def start(flags: int = 0, session: bool = False) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                creationflags=flags,
                start_new_session=session,
            )

        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
            try:
                return start(flags | subprocess.CREATE_BREAKAWAY_FROM_JOB)
            except PermissionError:  # the job object that this process is in lets none leave
                return start(flags)
        else:
            return start(session=True)


def end(pid: int) -> None:
    """Ends a process that `start_detached` started, and its children, at once. One that is gone is fine."""
    if sys.platform == "win32":
        if is_running(pid):
            os.kill(pid, signal.SIGTERM)  # there: at once; the process's job object takes its children along
    else:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number, which may be another one by now."""
    if sys.platform == "win32":
        return _is_running_on_windows(pid)
    else:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # there is one, of somebody else
            return True
        return True


def die_together() -> None:
    """From here on, whatever ends this process, be it SIGKILL, ends its children too.

    Only for a process that leads its group, as those of `start_detached` do; one in a shell's foreground shares its
    group with others and is left as it is. OSError.
    """
    if sys.platform == "win32":
        _die_together_on_windows()
    elif os.getpgrp() == os.getpid():
        # The end that is kept is a bare number: the system closes it, when all else of this process is over. A file
        # would be closed by Python on its way out, and the guard would come too early.
        pipe, _ = os.pipe()
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
        _kept.append(subprocess.Popen(guard, stdin=pipe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        os.close(pipe)


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    _KILL_ON_JOB_CLOSE = 0x2000
    _EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation
    _QUERY_LIMITED, _STILL_ACTIVE = 0x1000, 259

    class _BasicLimits(ctypes.Structure):
        _fields_ = [
            ("PerProcessUserTimeLimit", ctypes.c_int64),
            ("PerJobUserTimeLimit", ctypes.c_int64),
            ("LimitFlags", wintypes.DWORD),
            ("MinimumWorkingSetSize", ctypes.c_size_t),
            ("MaximumWorkingSetSize", ctypes.c_size_t),
            ("ActiveProcessLimit", wintypes.DWORD),
            ("Affinity", ctypes.c_size_t),
            ("PriorityClass", wintypes.DWORD),
            ("SchedulingClass", wintypes.DWORD),
        ]

    class _ExtendedLimits(ctypes.Structure):
        _fields_ = [
            ("BasicLimitInformation", _BasicLimits),
            ("IoInfo", ctypes.c_uint64 * 6),
            ("ProcessMemoryLimit", ctypes.c_size_t),
            ("JobMemoryLimit", ctypes.c_size_t),
            ("PeakProcessMemoryUsed", ctypes.c_size_t),
            ("PeakJobMemoryUsed", ctypes.c_size_t),
        ]

    def _kernel() -> ctypes.WinDLL:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        for name in ("CreateJobObjectW", "GetCurrentProcess", "OpenProcess"):
            getattr(kernel, name).restype = wintypes.HANDLE
        kernel.CreateJobObjectW.argtypes = [ctypes.c_void_p, wintypes.LPCWSTR]
        kernel.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, ctypes.c_void_p, wintypes.DWORD]
        kernel.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
        kernel.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
        kernel.GetExitCodeProcess.argtypes = [wintypes.HANDLE, ctypes.POINTER(wintypes.DWORD)]
        kernel.CloseHandle.argtypes = [wintypes.HANDLE]
        return kernel

    def _die_together_on_windows() -> None:
        """A job object of which this process holds the only handle: Windows ends its processes when that closes."""
        kernel = _kernel()
        job = kernel.CreateJobObjectW(None, None)
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        size = ctypes.sizeof(limits)
        if not (
            job
            and kernel.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), size)
            and kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess())
        ):
            raise ctypes.WinError(ctypes.get_last_error())
        _kept.append(job)

    def _is_running_on_windows(pid: int) -> bool:
        kernel = _kernel()
        process = kernel.OpenProcess(_QUERY_LIMITED, False, pid)
        if not process:
            return False
        code = wintypes.DWORD()
        try:
            return bool(kernel.GetExitCodeProcess(process, ctypes.byref(code))) and code.value == _STILL_ACTIVE
        finally:
            kernel.CloseHandle(process)

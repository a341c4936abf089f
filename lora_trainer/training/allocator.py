"""What the C library does with freed memory, where it can be told."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Freed blocks of up to 1 GiB stay with the process, on glibc; elsewhere nothing changes.

    A step on a CPU frees and takes many blocks of more than 32 MiB, which glibc otherwise asks the system for each
    time, page by page: a twentieth of a step of SD1.5 (benchmarks/README.md). But where the process's memory is limited
    large blocks go back at once: kept ones would count, in pieces too small for a step that needs less.
    """
    if libc := _glibc():
        libc.mallopt(_MMAP_THRESHOLD, 2**17 if is_limited() else 2**26)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def is_limited() -> bool:
    """Whether the system refuses memory to this process beyond a limit (`ulimit -v` or `-d`)."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return any(limit != resource.RLIM_INFINITY for limit in limits)


def give_back_memory() -> None:
    """Hands what is free back to the system, so that work of another shape does not add its peak to that."""
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None

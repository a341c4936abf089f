"""A long history, listed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.faults.jobs import Size, job_config
from benchmarks.faults.serving import request, serving
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

ROUNDS = 20


def list_jobs(work: Path, size: Size) -> dict[str, Any]:
    """Milliseconds, medians: all jobs, the newest 100, and all as the API's JSON over HTTP."""
    queue = Queue(work / "listing" / "jobs")
    began = time.perf_counter()
    for number in range(size.listed):
        queue.add(Work(job_config(size, work / "listing" / "Lora", f"job{number}")))
    added = time.perf_counter() - began
    with serving(queue) as port:
        api_ms = milliseconds(lambda: request(port, "GET", f"v1/jobs?limit={size.listed}"))
    return {
        "listed_jobs": len(queue.jobs()),
        "listed_ms": milliseconds(queue.jobs),
        "listed_page_ms": milliseconds(lambda: queue.jobs(limit=100)),
        "listed_api_ms": api_ms,
        "added_ms_each": 1000 * added / size.listed,
    }


def milliseconds(act: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)

"""A disk that is full while a job tells what it does, and while it saves.

A small file system in memory is filled to its last byte and emptied again. It is mounted for one process and its
children, which takes Linux and the right to have a user namespace; elsewhere the figures are None.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.faults.host import HostProcess
from benchmarks.faults.jobs import Size, environment, job_config, wait_for, wait_for_status
from benchmarks.faults.reference import unbroken
from benchmarks.faults.remains import all_events, damaged, left_behind, workers_of
from lora_trainer.jobs.event_log import Event
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
MOUNTED = 'mount -t tmpfs -o size=256m tmpfs "$0" && exec "$@"'
PAGE = 4096  # bytes; a file on a full disk can still be written up to the end of its last page
REFUSED = 3  # events, at the least
FIGURES = (
    "disk_full_events_refused", "disk_full_events_lost", "disk_full_saves_failed", "disk_full_saves_told",
    "disk_full_half_files", "disk_full_left_over_files", "disk_full_unequal_weights",
)  # fmt: skip


def fill_disk(work: Path, size: Size) -> dict[str, Any]:
    """What `fill` finds on a disk that is mounted as `work/disk`."""
    disk = work / "disk"
    disk.mkdir(parents=True)
    if not can_mount(disk):
        return dict.fromkeys(FIGURES)
    code = "import sys; from benchmarks.faults.disk import main; main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(work), json.dumps(asdict(size))]
    run = subprocess.run(
        [*IN_A_NAMESPACE, MOUNTED, str(disk), *command], stdout=subprocess.PIPE, env=environment(),
        encoding="utf-8", check=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return figures


def can_mount(disk: Path) -> bool:
    try:
        return subprocess.run([*IN_A_NAMESPACE, MOUNTED, str(disk), "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def fill(work: Path, size: Size) -> dict[str, Any]:
    """Fills the disk early in a job until its events are refused, and again until a save is."""
    reference, disk = unbroken(work), work / "disk"
    queue = Queue(disk / "jobs")
    config = job_config(size, disk / "Lora", "full", preview_every_epochs=0, preview_at_start=False)
    job = queue.add(Work(config))
    folder = queue.job_folder(job.id)
    with HostProcess(queue.folder):
        wait_for(lambda: any(event.kind == "progress" for event in all_events(folder)), "the first step")
        with full(disk):
            told = wait_until_refused(folder.events, psutil.Process(workers_of(folder)[0]))
            emptied_at = time.time()
        if size.epochs > 1:
            wait_for(folder.state.exists, "the first epoch's state")
        with full(disk):
            wait_for(lambda: not workers_of(folder), "the end of a worker that cannot save")
            half_files = damaged(disk)
        failed = wait_for_status(queue, job, "failed", "interrupted")
        refused = [event for event in all_events(folder) if event.next > told and event.at < emptied_at]
        queue.resume(job.id)
        finished = wait_for_status(queue, job, "finished")
    return {
        "disk_full_events_refused": len(refused),
        "disk_full_events_lost": gaps(all_events(folder)),
        "disk_full_saves_failed": 1,
        "disk_full_saves_told": int(failed.status == "failed" and failed.reason == "disk_full"),
        "disk_full_half_files": len([*half_files, *damaged(disk)]),
        "disk_full_left_over_files": len(left_behind(disk)),
        "disk_full_unequal_weights": reference.unequal(Path(finished.lora), folder),
    }


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Takes every byte of a disk that is free, and gives them back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12, 1):
            try:
                while file.write(bytes(block)):
                    pass
            except OSError:
                continue
    yield
    ballast.unlink()


def wait_until_refused(events: Path, worker: psutil.Process) -> int:
    """Until not one more byte of a job's events is taken, and then some have been refused; returns the bytes taken."""
    wait_for(lambda: events.stat().st_size % PAGE == 0, "events that are refused")
    written = worker.io_counters().write_count  # Linux counts those that fail, too
    wait_for(lambda: worker.io_counters().write_count >= written + REFUSED, "more events")
    return events.stat().st_size


def gaps(events: Sequence[Event]) -> int:
    """How many times a step does not follow the one before it, a worker's first one aside."""
    count, last = 0, None
    for event in events:
        if event.kind == "started":
            last = None
        elif event.kind == "progress":
            step = event.facts["step"]
            count += last is not None and step != last + 1
            last = step
    return count


def main(work: str, size: str) -> None:
    print(json.dumps(fill(Path(work), Size(**json.loads(size)))))

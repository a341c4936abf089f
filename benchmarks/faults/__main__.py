"""What a queue of jobs survives, tried on real workers and host processes: `python -m benchmarks.faults --json OUT`.

Two parts at a time. Of each count but those that say how much there was of something, 0 is what is hoped for:

listed_*        milliseconds to list 1,000 queued jobs
worker_kills_*  a worker killed at random moments, each time resumed, until the demo's training is finished
host_kills_*    the host process killed in every state of a job, and what the next one finds
leases_*        the GPU lent to the host in the middle of a training
clients_*       what five clients of one job's events over HTTP were told of it
disk_full_*     the disk full while a job tells what it does, and while it saves
bodies_*        malformed bodies sent to the API; bodies_answers counts its statuses

"unequal_weights" counts finished LoRAs that are not bit for bit that of a training that nothing befell.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.faults.bodies import send_malformed
from benchmarks.faults.disk import fill_disk
from benchmarks.faults.hosts import kill_hosts
from benchmarks.faults.jobs import FULL, SHORT, Size
from benchmarks.faults.listing import list_jobs
from benchmarks.faults.live import lend_and_follow
from benchmarks.faults.reference import train_unbroken
from benchmarks.faults.workers import kill_workers
from lora_trainer.files import write_text

Figures = dict[str, Any]
Part = Callable[[Path, Size], Figures]

LANES = 2
FIRST: dict[str, Part] = {"listing": list_jobs, "reference": train_unbroken}  # timed, or needed by others: alone
PARTS: dict[str, Part] = {
    **FIRST,
    "workers": kill_workers,
    "hosts": kill_hosts,
    "live": lend_and_follow,
    "disk": fill_disk,
    "bodies": send_malformed,
}


def measure(work: Path, size: Size, parts: Sequence[str] = tuple(PARTS)) -> Figures:
    """The figures of these parts; all that they made lies in `work`, which should be empty."""
    figures: Figures = {}

    def run(name: str) -> None:
        began = time.monotonic()
        figures.update(PARTS[name](work, size))
        figures[f"{name}_seconds"] = round(time.monotonic() - began, 1)

    chosen = [name for name in PARTS if name in (*parts, "reference")]
    for name in filter(FIRST.__contains__, chosen):
        run(name)
    with ThreadPoolExecutor(LANES) as lanes:
        list(lanes.map(run, [name for name in chosen if name not in FIRST]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--short", action="store_true", help="a few of each fault, on a shorter training")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="an empty folder, kept; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        figures = measure(work, SHORT if arguments.short else FULL, arguments.only)
    print("\n".join(f"{name}: {value}" for name, value in figures.items()))
    if arguments.json:
        write_text(arguments.json, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

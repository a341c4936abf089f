"""A worker that keeps to the protocol of a job's folder and does no work: `python stub_worker.py FOLDER`.

Tests tell it what to do by files in the folder: it goes on, a step at a time, until there is `finish`; `die` holds the
exit code with which it is to end at once, `deaf` makes it heed no command, and `linger` keeps it alive after its end.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_trainer.jobs.controls import FileControl
from lora_trainer.jobs.event_log import EventWriter
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.processes import die_together
from lora_trainer.jobs.stops import Wishes
from lora_trainer.locks import Lock, Taken

FREED = 1_000_000


def work(folder: JobFolder) -> int:
    report = EventWriter(folder.events)
    control = FileControl(folder, report)
    step = int(folder.state.read_text(encoding="utf-8")) if folder.state.exists() else 0
    report("started", name="stub", step=step, steps=1000, epochs=10)
    while not (folder.path / "finish").exists():
        wishes = Wishes() if (folder.path / "deaf").exists() else control.wishes()
        if wishes.paused and not wishes.stop:
            report("paused", freed=FREED, step=step)
            while (wishes := control.wishes()).paused and not wishes.stop:
                time.sleep(0.005)
            report("resumed", step=step)
        if wishes.stop:
            report("stopped", step=step, steps=1000)
            return 0
        step += 1
        save(folder.state, str(step))
        report("progress", step=step, steps=1000, epoch=1, epochs=10, loss=0.5, average=0.25)
        if (folder.path / "die").exists():
            return int((folder.path / "die").read_text(encoding="utf-8"))
        time.sleep(0.005)
    report("finished", lora=str(folder.models / "stub.safetensors"), steps=step, loss=0.125)
    while (folder.path / "linger").exists():
        time.sleep(0.005)
    return 0


def save(path: Path, text: str) -> None:
    """Whole, as a worker may be killed at any moment."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main() -> int:
    folder = JobFolder(Path(sys.argv[1]))
    lock = Lock(folder.lock)
    try:
        lock.take()
    except Taken:
        return 3
    die_together()
    folder.worker.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    return work(folder)


if __name__ == "__main__":
    sys.exit(main())

"""The dataset of a job, prepared before it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Control, Stop
from lora_trainer.jobs.work import Work
from lora_trainer.packages import ROOT
from lora_trainer.preparing.run import prepare

MODELS = ROOT / "models"


def prepare_for(job: Work, control: Control, report: Report) -> bool:
    """Whether it came to its end; else it was stopped, and the next time goes on from there."""
    wanted = job.prepare
    assert wanted is not None, "only for a job that has something to prepare"
    stop = Stop()
    done = prepare(
        job.config,
        [Path(source) for source in wanted.sources],
        Path(wanted.folder),
        Path(wanted.models) if wanted.models else MODELS,
        wanted.unwanted,
        wanted.uncut,
        asked_by(control, stop, report),
        stop,
    )
    if done.stopped:
        report("stopped", step=0, steps=0)
    else:
        report("prepared", **done.facts())
    return not done.stopped


def asked_by(control: Control, stop: Stop, report: Report) -> Report:
    """A report by which work that only looks at a `Stop` hears of pauses too: it is held where it tells something."""

    def told(kind: str, /, **facts: Any) -> None:
        report(kind, **facts)
        wishes, paused = control.wishes(), False
        while wishes.paused and not wishes.stop:
            if not paused:
                report("paused", freed=0)
            paused = True
            control.wait()
            wishes = control.wishes()
        if wishes.stop:
            stop.ask()
        elif paused:
            report("resumed")

    return told

"""One training run, from a config to the saved LoRA: read `train` from top to bottom."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from lora_trainer.config import Config
from lora_trainer.jobs.events import Report, silent
from lora_trainer.jobs.stops import Control, Wishes
from lora_trainer.training.allocator import keep_freed_memory
from lora_trainer.training.boundary import Boundary, Stopped
from lora_trainer.training.device import peak_memory
from lora_trainer.training.fit import Fit
from lora_trainer.training.learning import Learner
from lora_trainer.training.measure import Meter
from lora_trainer.training.models import Models
from lora_trainer.training.run import Run, open_run
from lora_trainer.training.saving import Saver
from lora_trainer.training.state import load_state


@dataclass(frozen=True)
class Outcome:
    """`lora`: the finished file, or None where the run was stopped before its end (it goes on when trained again)."""

    lora: Path | None
    steps: int
    loss: float
    seconds: float


def train(
    config: Config,
    report: Report = silent,
    control: Control | None = None,
    fresh: bool = False,
    run_folder: Path | None = None,
) -> Outcome:
    """Trains a LoRA as `config` says, going on from the newest state of an interrupted run of the same config.

    `control` is looked at after every step and while pictures are encoded: a stop saves and returns. `fresh` forgets an
    interrupted run. `run_folder`: a job's own, for all that the run writes; without it the LoRAs go to the config's
    output folder. BadInput for anything wrong with settings, base or pictures, before anything is written;
    TrainingFailed for what ends a run later, with all saves kept.
    """
    started = time.monotonic()
    keep_freed_memory()
    accelerator = Accelerator()
    report = report if accelerator.is_main_process else silent
    run = open_run(config, accelerator, fresh, run_folder)
    plan, fit = run.plan, Fit(run, accelerator, report)
    for remark in plan.remarks:
        report("warning", message=remark)
    report("started", **run.summary())

    boundary = Boundary(control, accelerator, report)
    try:
        models = fit.load(boundary.between_pictures)
    except Stopped:
        return stopped(run, run.step, math.nan, started, report, accelerator)
    fit.probe()
    learner = fit.build_learner()
    step, average = restore(run, models, learner, report)
    run.begin(accelerator)
    saver = Saver(run, models, learner, report)
    if accelerator.is_main_process:
        saver.catch_up(step)

    meter = Meter(run, fit.precision, accelerator.device, started, report)
    while step < plan.total_steps:
        began, rates = time.monotonic(), learner.rates()
        loss = fit.take(step)
        if loss is None:  # memory ran short while weights were changed
            run.state = load_state(run.outputs.state)
            step, average = restore(run, models, learner, report)
            continue
        step += 1
        average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
        seconds = time.monotonic() - began
        report(
            "progress",
            step=step,
            steps=plan.total_steps,
            epoch=(step - 1) // plan.steps_per_epoch + 1,
            epochs=plan.epochs,
            loss=loss,
            average=average,
            rates=rates,
            seconds=seconds,
        )
        last = step == plan.total_steps
        meter.after_step(seconds, last)
        wishes = Wishes() if last else boundary.wishes()
        heed = partial(saver.heed, step, average) if accelerator.is_main_process else None
        if heed:
            saver.after_step(step, average, wishes)
        if wishes.paused and not wishes.stop:
            wishes = boundary.pause(models, learner, fit.steps, heed=heed)
        if wishes.stop:
            return stopped(run, step, average, started, report, accelerator)
    outcome = Outcome(run.outputs.final, step, average, time.monotonic() - started)
    report("finished", lora=str(outcome.lora), steps=step, loss=average, seconds=outcome.seconds,
           **peak_memory(accelerator.device))  # fmt: skip
    leave(accelerator)
    return outcome


def leave(accelerator: Accelerator) -> None:
    """Several processes end together: one that goes before the others cuts their connections to it."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        accelerator.end_training()


def stopped(run: Run, step: int, average: float, started: float, report: Report, accelerator: Accelerator) -> Outcome:
    report("stopped", step=step, steps=run.plan.total_steps)
    leave(accelerator)
    return Outcome(None, step, average, time.monotonic() - started)


def restore(run: Run, models: Models, learner: Learner, report: Report) -> tuple[int, float]:
    """The step and the average loss to go on from: those of the run's state, or a fresh network's."""
    state = run.state
    if state is None:
        for remark in models.initialise_network():
            report("warning", message=remark)
        return 0, math.nan
    models.network.load_state_dict(state.network)
    learner.load_state(state.optimizer, state.schedule, state.scaler, state.optimizer_name)
    return state.step, state.loss_average

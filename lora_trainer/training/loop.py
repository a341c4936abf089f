"""One training run, from a config to the saved LoRA: read `train` from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_trainer.config import Config
from lora_trainer.jobs.events import Report, silent
from lora_trainer.jobs.stops import Stop
from lora_trainer.training.allocator import keep_freed_memory
from lora_trainer.training.batches import Batch, make_batch
from lora_trainer.training.device import choose_precision, peak_memory
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.learning import Learner, build_learner
from lora_trainer.training.loss import denoising_loss, huber_threshold, sample_weights
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.noise_schedule import NoiseSchedule
from lora_trainer.training.plan import Plan
from lora_trainer.training.randomness import seed_for
from lora_trainer.training.run import Run, open_run
from lora_trainer.training.saving import Saver


@dataclass(frozen=True)
class Outcome:
    """`lora`: the finished file, or None where the run was stopped before its end (it goes on when trained again)."""

    lora: Path | None
    steps: int
    loss: float
    seconds: float


def train(config: Config, report: Report = silent, stop: Stop | None = None, fresh: bool = False) -> Outcome:
    """Trains a LoRA as `config` says, going on from the newest state of an interrupted run of the same config.

    `stop` is looked at after every step: the run then saves and returns. `fresh` forgets an interrupted run.
    BadInput for anything wrong with settings, base or pictures, before anything is written; TrainingFailed for what
    ends a run later, with all saves kept.
    """
    started = time.monotonic()
    keep_freed_memory()
    accelerator = Accelerator()
    report = report if accelerator.is_main_process else silent
    run = open_run(config, accelerator, fresh)
    plan = run.plan
    precision = choose_precision(plan.config.mixed_precision, plan.config.base_precision, accelerator.device)
    for remark in plan.remarks:
        report("warning", message=remark)
    report("started", **run.summary())

    models = load_models(plan, precision, accelerator.device, report)
    learner = build_learner(plan, models, precision.scaled, accelerator.device)
    step, average = restore(run, models, learner, report)
    run.begin(accelerator)
    saver = Saver(run, models, learner, report)
    if accelerator.is_main_process:
        saver.catch_up(step)

    steps = Steps(plan, models, accelerator)
    while step < plan.total_steps:
        began, rates = time.monotonic(), learner.rates()
        loss = steps.take(step, learner)
        step += 1
        average = loss if math.isnan(average) else 0.98 * average + 0.02 * loss
        report(
            "progress",
            step=step,
            steps=plan.total_steps,
            epoch=(step - 1) // plan.steps_per_epoch + 1,
            epochs=plan.epochs,
            loss=loss,
            average=average,
            rates=rates,
            seconds=time.monotonic() - began,
        )
        stopping = step < plan.total_steps and wanted_anywhere(stop, accelerator)
        if accelerator.is_main_process:
            saver.after_step(step, average, stopping)
        if stopping:
            report("stopped", step=step, steps=plan.total_steps)
            return Outcome(None, step, average, time.monotonic() - started)
    outcome = Outcome(run.outputs.final, step, average, time.monotonic() - started)
    report("finished", lora=str(outcome.lora), steps=step, loss=average, seconds=outcome.seconds,
           **peak_memory(accelerator.device))  # fmt: skip
    return outcome


def wanted_anywhere(stop: Stop | None, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop: they only end together."""
    wanted = bool(stop and stop.wanted)
    if accelerator.num_processes == 1:
        return wanted
    return bool(accelerator.reduce(torch.tensor(float(wanted), device=accelerator.device), "sum"))


def restore(run: Run, models: Models, learner: Learner, report: Report) -> tuple[int, float]:
    """The step and the average loss to go on from: those of the run's state, or a fresh network's."""
    state = run.state
    if state is None:
        for remark in models.initialise_network():
            report("warning", message=remark)
        return 0, math.nan
    models.network.load_state_dict(state.network)
    learner.load_state(state.optimizer, state.schedule, state.scaler)
    return state.step, state.loss_average


class Steps:
    """The optimizer steps of a run. Each takes `gradient_accumulation` batches on each process."""

    def __init__(self, plan: Plan, models: Models, accelerator: Accelerator):
        self._plan, self._models, self._accelerator = plan, models, accelerator
        self._schedule = NoiseSchedule(plan.prediction_type, plan.zero_terminal_snr)
        self._epoch = -1
        self._batches: tuple[tuple[int, ...], ...] = ()

    def take(self, step: int, learner: Learner) -> float:
        """Step `step` (from 0) of the run; returns its loss, the mean over all processes' batches.

        TrainingFailed if the loss or a gradient is not finite.
        """
        accelerator, total = self._accelerator, torch.zeros((), device=self._accelerator.device)
        for number, batch, share in self._share_of(step):
            torch.manual_seed(seed_for(self._plan.seed, "dropout", step, number))
            loss = self.loss(batch) * share
            learner.backward(loss)
            total += loss.detach()
        if accelerator.num_processes > 1:
            learner.sum_gradients(accelerator)
            total = accelerator.reduce(total, "sum")
        mean = total.item()
        if not math.isfinite(mean):
            raise TrainingFailed(
                f"The loss became {mean} at step {step + 1}; the last good save is kept.",
                "Lower the learning rate, or use bf16 or no mixed precision instead of fp16, and start again.",
            )
        learner.step()
        return mean

    def loss(self, batch: Batch) -> Tensor:
        """The batch's loss, a scalar: weighted mean over its samples of the mean over each latent."""
        config, models, schedule = self._plan.config, self._models, self._schedule
        device = self._accelerator.device
        latents, timesteps = batch.latents.to(device), batch.timesteps.to(device)
        noisy = schedule.add_noise(latents, batch.perturbed.to(device), timesteps)
        target = schedule.target(latents, batch.noise.to(device), timesteps)
        conditioning = models.texts(batch.captions)
        prediction = models.denoise(noisy, timesteps, conditioning, batch.sizes.to(device))
        huber_c = huber_threshold(timesteps, schedule, config.huber_schedule, config.huber_c)
        mask = None if batch.mask is None else batch.mask.to(device)
        losses = denoising_loss(prediction, target, kind=config.loss, huber_c=huber_c, mask=mask).mean(dim=(1, 2, 3))
        weights = sample_weights(
            timesteps,
            schedule,
            min_snr_gamma=config.min_snr_gamma,
            scale_v_pred_loss=config.scale_v_pred_loss,
            v_pred_like_loss=config.v_pred_like_loss,
            debiased_estimation=config.debiased_estimation,
        )
        return (losses * batch.weights.to(device) * weights.to(device)).mean()

    def _share_of(self, step: int) -> Iterator[tuple[int, Batch, float]]:
        """This process's batches of a step, with their number in the epoch and their share of the step's mean."""
        plan, accelerator = self._plan, self._accelerator
        epoch, place = divmod(step, plan.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, plan.batches(epoch)
        size = plan.config.gradient_accumulation * accelerator.num_processes
        group = list(enumerate(self._batches))[place * size : (place + 1) * size]
        for number, indices in group[accelerator.process_index :: accelerator.num_processes]:
            yield number, make_batch(plan, self._models.pictures, epoch, number, indices), 1 / len(group)

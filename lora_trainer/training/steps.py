"""The optimizer steps of a run: what is drawn, computed and learned in each."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from accelerate import Accelerator
from torch import Tensor

from lora_trainer.training.batches import Batch, make_batch
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.forward_process import schedule_of
from lora_trainer.training.learning import Learner
from lora_trainer.training.loss import denoising_loss, huber_threshold, sample_weights
from lora_trainer.training.models import Models
from lora_trainer.training.plan import Plan
from lora_trainer.training.randomness import drawn_as_part, seed_for


class Steps:
    """The optimizer steps of a run. Each takes `gradient_accumulation` batches on each process."""

    def __init__(self, plan: Plan, models: Models, accelerator: Accelerator):
        self._plan, self._models, self._accelerator = plan, models, accelerator
        self._schedule = schedule_of(plan)
        self._epoch = -1
        self._batches: tuple[tuple[int, ...], ...] = ()

    def take(self, step: int, learner: Learner) -> float:
        """Step `step` (from 0) of the run; returns its loss, the mean over all processes' batches.

        TrainingFailed if the loss or a gradient is not finite.
        """
        accelerator, total = self._accelerator, torch.zeros((), device=self._accelerator.device)
        for number, batch, share in self._share_of(step):
            total += self._backward(batch, share, seed_for(self._plan.seed, "dropout", step, number), learner)
        if accelerator.num_processes > 1:
            learner.sum_gradients(accelerator)
            total = accelerator.reduce(total, "sum")
        mean = total.item()
        if not math.isfinite(mean):
            raise TrainingFailed(
                f"The loss became {mean} at step {step + 1}; the last good save is kept.",
                "Lower the learning rate, or use bf16 or no mixed precision instead of fp16, and start again.",
                "nan",
            )
        learner.step()
        return mean

    def try_largest(self, learner: Learner) -> None:
        """A step of this process with the largest batch that the run has, to see whether it can be computed."""
        plan = self._plan
        batches = list(enumerate(plan.batches(0)))
        number, indices = max(batches, key=lambda each: len(each[1]) * math.prod(plan.placements[each[1][0]].bucket))
        self._backward(make_batch(plan, self._models.pictures, 0, number, indices), 1.0, 0, learner)
        learner.step()

    def _backward(self, batch: Batch, share: float, seed: int, learner: Learner) -> Tensor:
        """Adds the gradients of the batch's loss times `share`; returns that, a scalar.

        A part of the batch is computed at a time, as the setting micro_batch has it, and weighs as many samples as it
        has, so that the sum is the whole batch's.
        """
        total = torch.zeros((), device=self._accelerator.device)
        for first, part in batch.parts(self._plan.config.micro_batch or len(batch)):
            torch.manual_seed(seed)
            with drawn_as_part(first, len(part), len(batch)):
                loss = self.loss(part) * (share * (len(part) / len(batch)))
                learner.backward(loss)
            total += loss.detach()
        return total

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

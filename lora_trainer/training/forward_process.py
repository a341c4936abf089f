"""How a base's pictures become noise, and what its model must predict of that: what all noise schedules have."""

from __future__ import annotations

from typing import Protocol

from torch import Generator, Tensor

from lora_trainer.training.flow_schedule import FlowSchedule
from lora_trainer.training.noise_schedule import NoiseSchedule
from lora_trainer.training.plan import Plan


class Schedule(Protocol):
    """`timesteps` are (B,) from 0 (the picture) to 1000 (noise); the other tensors (B, ...) of one floating dtype.

    `prediction_type`: "epsilon" (the noise), "v" or "flow" (the velocities of the two processes).
    """

    @property
    def prediction_type(self) -> str: ...

    def draw(self, generator: Generator, size: tuple[int, int], minimum: int, maximum: int) -> float:
        """One sample's timestep between the bounds, in one draw; `size`: height and width of its latents."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model must predict for these latents under this noise."""
        ...

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) float32: the signal's variance over the noise's."""
        ...


def schedule_of(plan: Plan) -> Schedule:
    """The schedule that the plan's base is trained with."""
    if plan.prediction_type == "flow":
        return FlowSchedule(plan.config.timestep_sampling, plan.config.flow_shift)
    return NoiseSchedule(plan.prediction_type, plan.zero_terminal_snr)

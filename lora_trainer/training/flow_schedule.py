"""Flux's forward process, rectified flow (Liu et al. 2022): straight lines that lead from pictures to noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lora_trainer.inspecting.flux import PATCH
from lora_trainer.training.noise_schedule import TIMESTEPS

SAMPLINGS = ("sigma", "uniform", "sigmoid", "shift", "flux_shift")
FEWEST_TOKENS, LEAST_MU = 256, 0.5
MOST_TOKENS, MOST_MU = 4096, 1.15


def shifted(level: float, shift: float) -> float:
    """A noise level in 0..1 moved towards the noise where `shift` is above 1 (Esser et al. 2024, equation 23)."""
    return shift * level / (1 + (shift - 1) * level)


def size_shift(height: int, width: int) -> float:
    """The shift that Flux's own sampler has for latents of this size: exp(mu), mu being linear in their tokens.

    Larger pictures need more noise before nothing of them can be seen: 1.65 at 256 x 256 pixels, 3.16 at 1024 x 1024.
    """
    tokens = (height // PATCH) * (width // PATCH)
    return math.exp(LEAST_MU + (MOST_MU - LEAST_MU) * (tokens - FEWEST_TOKENS) / (MOST_TOKENS - FEWEST_TOKENS))


@dataclass(frozen=True)
class FlowSchedule:
    """The noise levels of Flux's training, as sd-scripts draws them. A level is the noise's share, in 0..1.

    In all methods `timesteps` is (B,) float32, 1000 times the level; the other tensors are (B, ...) of one floating
    dtype, kept.
    """

    sampling: str = "shift"
    shift: float = 3.1582

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"sampling is {self.sampling!r}: it must be one of {', '.join(SAMPLINGS)}.")

    @property
    def prediction_type(self) -> str:
        return "flow"

    def draw(self, generator: Generator, size: tuple[int, int], minimum: int = 0, maximum: int = TIMESTEPS) -> float:
        """A timestep for latents of this height and width: a level of 0..1 stands for one between the bounds."""
        return minimum + (maximum - minimum) * self._level(generator, size)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        levels = _levels(timesteps, latents)
        return (1 - levels) * latents + levels * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity along the line, the same at all its levels."""
        return noise - latents

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) float32: ((1 - level) / level)**2, without end at a level of 0."""
        levels = timesteps.float() / TIMESTEPS
        return ((1 - levels) / levels) ** 2

    def _level(self, generator: Generator, size: tuple[int, int]) -> float:
        if self.sampling == "uniform":
            return float(torch.rand((), generator=generator))
        if self.sampling == "sigma":  # the levels of a scheduler with 1000 steps, from the noisiest on
            place = int(TIMESTEPS * torch.rand((), generator=generator))
            return shifted(1 - place / TIMESTEPS, self.shift)
        shift = {"sigmoid": 1.0, "shift": self.shift, "flux_shift": size_shift(*size)}[self.sampling]
        return shifted(float(torch.randn((), generator=generator).sigmoid()), shift)


def _levels(timesteps: Tensor, like: Tensor) -> Tensor:
    return (timesteps.to(like.device) / TIMESTEPS).to(like.dtype).view(-1, *(1,) * (like.ndim - 1))

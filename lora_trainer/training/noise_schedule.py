"""Stable Diffusion's forward process: how noisy each of its 1000 timesteps is, and what the U-Net must predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

TIMESTEPS = 1000
FIRST_BETA, LAST_BETA = 0.00085, 0.012


def scaled_linear_alphas_cumprod() -> Tensor:
    """(1000,) float64: the signal's variance where the betas' square roots rise linearly (Rombach et al. 2022)."""
    betas = torch.linspace(FIRST_BETA**0.5, LAST_BETA**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def to_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The same curve with its last value moved to 0 and its first one kept (Lin et al. 2024, algorithm 1)."""
    signal = alphas_cumprod.sqrt()
    return ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2


@dataclass(frozen=True)
class NoiseSchedule:
    """The noise schedule of SD1.x, SD2.x and SDXL.

    prediction_type: "epsilon" (the U-Net predicts the noise) or "v" (Salimans and Ho 2022).
    In all methods `timesteps` is (B,) int64 in 0..999; the other tensors are (B, ...) of one floating dtype, kept.
    """

    prediction_type: str = "epsilon"
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v"):
            raise ValueError(f"prediction_type is {self.prediction_type!r}: it must be 'epsilon' or 'v'.")

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """(1000,) float64, on the CPU."""
        usual = scaled_linear_alphas_cumprod()
        return to_zero_terminal_snr(usual) if self.zero_terminal_snr else usual

    @cached_property
    def signal(self) -> Tensor:
        """(1000,) float32: the factor of the clean latents in the noisy ones."""
        return self.alphas_cumprod.sqrt().float()

    @cached_property
    def sigma(self) -> Tensor:
        """(1000,) float32: the factor of the noise in the noisy latents."""
        return (1 - self.alphas_cumprod).sqrt().float()

    def draw(self, generator: Generator, size: tuple[int, int], minimum: int = 0, maximum: int = TIMESTEPS) -> int:
        """A timestep in minimum..maximum-1, for latents of any size; two equal bounds give that one timestep."""
        if minimum >= maximum:
            return min(maximum, TIMESTEPS - 1)
        return int(torch.randint(minimum, maximum, (), generator=generator))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        signal, sigma = self._factors(timesteps, latents)
        return signal * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net must predict for these latents under this noise."""
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._factors(timesteps, latents)
        return signal * noise - sigma * latents

    def to_clean(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The clean latents that a prediction stands for; not finite for an epsilon prediction at a signal of 0."""
        signal, sigma = self._factors(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - sigma * prediction) / signal
        return signal * noisy - sigma * prediction

    def snr(self, timesteps: Tensor) -> Tensor:
        """(B,) float32: signal variance over noise variance, from about 1176 at 0 down to 0.0047 (or 0) at 999."""
        ratio = (self.alphas_cumprod / (1 - self.alphas_cumprod)).float()
        return ratio.to(timesteps.device)[timesteps]

    def _factors(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1,) + (1,) * (like.ndim - 1)
        tables = (table.to(like.device)[timesteps].to(like.dtype).view(shape) for table in (self.signal, self.sigma))
        signal, sigma = tables
        return signal, sigma

"""The random draws of one training sample, all from one CPU generator: its noise depends on its seed alone."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional


def draw_noise(
    shape: tuple[int, int, int],
    generator: Generator,
    *,
    offset: float = 0.0,
    offset_random_strength: bool = False,
    adaptive_scale: float = 0.0,
    latents: Tensor | None = None,
    multires_iterations: int = 0,
    multires_discount: float = 0.3,
) -> Tensor:
    """(C, H, W) float32 noise on the CPU: normal noise, then its offset, then its coarser layers, each where asked for.

    `latents` (C, H, W) are needed for `adaptive_scale` only. The order is that of sd-scripts.
    """
    noise = torch.randn(shape, generator=generator)
    if offset:
        strength = offset * _uniform(generator) if offset_random_strength else offset
        noise = _add_offset(noise, generator, strength, adaptive_scale, latents)
    if multires_iterations:
        noise = _add_coarser_layers(noise, generator, multires_iterations, multires_discount)
    return noise


def perturb(noise: Tensor, gamma: float, generator: Generator) -> Tensor:
    """The noise to mix into perturbed latents (Ning et al. 2023); the target keeps the plain noise."""
    return noise + gamma * torch.randn(noise.shape, generator=generator) if gamma else noise


def _uniform(generator: Generator) -> float:
    return float(torch.rand((), generator=generator))


def _add_offset(
    noise: Tensor, generator: Generator, strength: float, adaptive_scale: float, latents: Tensor | None
) -> Tensor:
    """One more draw per channel, the same at each pixel, for dark and bright pictures to be learned (crosslabs.org)."""
    per_channel = torch.full((noise.shape[0], 1, 1), strength)
    if adaptive_scale:
        if latents is None:
            raise ValueError("adaptive_scale needs the sample's latents.")
        mean = latents.float().cpu().mean(dim=(1, 2), keepdim=True)
        per_channel = (per_channel + adaptive_scale * mean.abs()).clamp_min(0)
    return noise + per_channel * torch.randn(per_channel.shape, generator=generator)


def _add_coarser_layers(noise: Tensor, generator: Generator, iterations: int, discount: float) -> Tensor:
    """Multi-resolution noise (Whitaker 2023), scaled back to a standard deviation of 1.

    Layer i weighs discount**i and is r**i times coarser than the noise, as in sd-scripts; 2 <= r < 4 is drawn for each.
    """
    _, height, width = noise.shape
    for i in range(iterations):
        coarseness = (2 + 2 * _uniform(generator)) ** i
        size = (max(1, int(height / coarseness)), max(1, int(width / coarseness)))
        coarse = torch.randn((1, noise.shape[0], *size), generator=generator)
        noise = noise + discount**i * functional.interpolate(coarse, (height, width), mode="bilinear")[0]
        if 1 in size:
            break
    return noise / noise.std()

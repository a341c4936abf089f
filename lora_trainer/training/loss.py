"""The denoising loss of each sample, and its weight by timestep."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lora_trainer.training.forward_process import Schedule
from lora_trainer.training.noise_schedule import TIMESTEPS

# Past these, weights by the inverse of the SNR would drown all other samples. SD's own SNR lies within them but at the
# first timestep and, with zero terminal SNR, at the last ones.
LEAST_SNR, MOST_SNR = 1e-3, 1e3


def denoising_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    kind: str = "l2",
    huber_c: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The loss of each latent pixel, (B, C, H, W) float32, unreduced.

    kind "huber" and "smooth_l1" are sd-scripts' pseudo-Huber losses with the thresholds `huber_c` (B,): for a small
    difference d they go like d**2 and d**2 / c, for a large one like 2*c*|d| and 2*|d|.
    mask (B, 1, h, w) in 0..1, of any size: scaled to the latents by area, then multiplied in.
    """
    difference = prediction.float() - target.float()
    if kind == "l2":
        loss = difference**2
    elif kind in ("huber", "smooth_l1"):
        loss = _pseudo_huber(difference, kind, huber_c)
    else:
        raise ValueError(f"loss is {kind!r}: it must be 'l2', 'huber' or 'smooth_l1'.")
    if mask is not None:
        loss = loss * functional.interpolate(mask.to(loss), loss.shape[-2:], mode="area")
    return loss


def _pseudo_huber(difference: Tensor, kind: str, huber_c: Tensor | None) -> Tensor:
    if huber_c is None:
        raise ValueError(f"The loss {kind!r} needs huber_c, one threshold per sample.")
    c = huber_c.to(difference).view(-1, *(1,) * (difference.ndim - 1))
    excess = 2 * ((difference**2 + c**2).sqrt() - c)
    return c * excess if kind == "huber" else excess


def huber_threshold(timesteps: Tensor, schedule: Schedule, kind: str = "constant", huber_c: float = 0.1) -> Tensor:
    """(B,) float32 thresholds: `huber_c` at each timestep, or falling from 1 to `huber_c` as the noise grows.

    "exponential" falls as huber_c ** (t / 1000); "snr" as (1 - c) / (1 + sigma)**2 + c, sigma being noise over signal.
    """
    if kind == "constant":
        return torch.full(timesteps.shape, huber_c, device=timesteps.device)
    if kind == "exponential":
        return huber_c ** (timesteps.float() / TIMESTEPS)
    if kind == "snr":
        noise_over_signal = schedule.snr(timesteps).rsqrt()
        return (1 - huber_c) / (1 + noise_over_signal) ** 2 + huber_c
    raise ValueError(f"huber_schedule is {kind!r}: it must be 'constant', 'exponential' or 'snr'.")


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for v (Hang et al. 2023); at an SNR of 0 their limits, 1 and 0."""
    return snr.clamp(max=gamma) / (snr + 1) if prediction_type == "v" else (gamma / snr).clamp(max=1)


def debiased_weight(snr: Tensor, prediction_type: str) -> Tensor:
    """1 / sqrt(SNR) for epsilon (Yu et al. 2023), 1 / (SNR + 1) for v."""
    bounded = snr.clamp(LEAST_SNR, MOST_SNR)
    return 1 / (bounded + 1) if prediction_type == "v" else bounded.rsqrt()


def v_pred_scale(snr: Tensor) -> Tensor:
    """SNR / (SNR + 1): makes a v loss weigh what the epsilon loss of the same error would."""
    bounded = snr.clamp(max=MOST_SNR)
    return bounded / (bounded + 1)


def v_pred_like(snr: Tensor, strength: float) -> Tensor:
    """1 + strength * (SNR + 1) / SNR: adds `strength` times the v loss of the same error to an epsilon loss."""
    return 1 + strength / v_pred_scale(snr.clamp(min=LEAST_SNR))


def sample_weights(
    timesteps: Tensor,
    schedule: Schedule,
    *,
    min_snr_gamma: float = 0.0,
    scale_v_pred_loss: bool = False,
    v_pred_like_loss: float = 0.0,
    debiased_estimation: bool = False,
) -> Tensor:
    """(B,) float32: the product of all the weights that are switched on; ones when none is."""
    snr = schedule.snr(timesteps)
    weights = torch.ones_like(snr)
    if min_snr_gamma:
        weights = weights * min_snr_weight(snr, min_snr_gamma, schedule.prediction_type)
    if scale_v_pred_loss:
        weights = weights * v_pred_scale(snr)
    if v_pred_like_loss:
        weights = weights * v_pred_like(snr, v_pred_like_loss)
    if debiased_estimation:
        weights = weights * debiased_weight(snr, schedule.prediction_type)
    return weights

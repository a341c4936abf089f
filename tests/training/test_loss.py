from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from lora_trainer.training.loss import (
    debiased_weight,
    denoising_loss,
    huber_threshold,
    min_snr_weight,
    sample_weights,
    v_pred_like,
    v_pred_scale,
)
from lora_trainer.training.noise_schedule import NoiseSchedule

SAMPLE = (3, 4, 6, 5)
Pair = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def pair() -> Pair:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(SAMPLE, generator=generator), torch.randn(SAMPLE, generator=generator)


def one_pixel(difference: float, kind: str, c: float) -> float:
    pixel = torch.full((1, 1, 1, 1), difference, dtype=torch.float32)
    return denoising_loss(pixel, torch.zeros_like(pixel), kind=kind, huber_c=torch.tensor([c])).item()


def test_l2_is_torchs_mse(pair: Pair) -> None:
    assert torch.equal(denoising_loss(*pair), functional.mse_loss(*pair, reduction="none"))


@settings(deadline=None)
@given(d=st.floats(-50, 50, allow_subnormal=False), c=st.floats(0.01, 5))
def test_the_huber_losses_in_closed_form(d: float, c: float) -> None:
    excess = 2 * (math.hypot(d, c) - c)
    assert one_pixel(d, "huber", c) == pytest.approx(c * excess, rel=1e-3, abs=1e-4)
    assert one_pixel(d, "smooth_l1", c) == pytest.approx(excess, rel=1e-3, abs=1e-4)


def test_the_huber_losses_go_from_squared_to_absolute(pair: Pair) -> None:
    wide, narrow = torch.full((3,), 1e2), torch.full((3,), 1e-4)
    torch.testing.assert_close(
        denoising_loss(*pair, kind="huber", huber_c=wide),
        functional.mse_loss(*pair, reduction="none"),
        atol=2e-2,
        rtol=1e-2,
    )
    torch.testing.assert_close(
        denoising_loss(*pair, kind="smooth_l1", huber_c=narrow),
        2 * functional.l1_loss(*pair, reduction="none"),
        atol=3e-4,
        rtol=1e-4,
    )


def test_each_sample_has_its_own_threshold(pair: Pair) -> None:
    thresholds = torch.tensor([0.05, 0.5, 5.0])
    together = denoising_loss(*pair, kind="huber", huber_c=thresholds)
    for i, c in enumerate(thresholds):
        alone = denoising_loss(pair[0][i : i + 1], pair[1][i : i + 1], kind="huber", huber_c=c.view(1))
        assert torch.equal(together[i : i + 1], alone)


def test_a_loss_is_float32_whatever_the_prediction() -> None:
    prediction, target = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16), torch.zeros(1, 1, 2, 2)
    assert denoising_loss(prediction, target).dtype == torch.float32


def test_a_mask_of_another_size_is_scaled_by_area(pair: Pair) -> None:
    mask = torch.zeros(3, 1, 12, 10)
    mask[:, :, :6] = 1
    mask[:, :, 6] = 0.5
    loss = denoising_loss(*pair, mask=mask)
    plain = denoising_loss(*pair)
    assert torch.equal(loss[:, :, :3], plain[:, :, :3])
    torch.testing.assert_close(loss[:, :, 3], plain[:, :, 3] * 0.25)
    assert (loss[:, :, 4:] == 0).all()


def test_masked_pixels_get_no_gradient(pair: Pair) -> None:
    prediction = pair[0].clone().requires_grad_()
    mask = torch.ones(3, 1, 6, 5)
    mask[1] = 0
    denoising_loss(prediction, pair[1], mask=mask).mean().backward()
    assert prediction.grad is not None
    assert (prediction.grad[1] == 0).all() and (prediction.grad[0] != 0).all()


@pytest.mark.parametrize(("kind", "message"), [("l3", "must be 'l2'"), ("huber", "needs huber_c")])
def test_losses_that_cannot_be(pair: Pair, kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoising_loss(*pair, kind=kind)


@settings(deadline=None)
@given(timestep=st.integers(0, 999), c=st.floats(0.01, 1))
def test_thresholds_in_closed_form(timestep: int, c: float) -> None:
    schedule, timesteps = NoiseSchedule(), torch.tensor([timestep])
    alpha = schedule.alphas_cumprod[timestep].item()
    sigma = math.sqrt((1 - alpha) / alpha)
    expected = {
        "constant": c,
        "exponential": math.exp(math.log(c) * timestep / 1000),
        "snr": (1 - c) / (1 + sigma) ** 2 + c,
    }
    for kind, value in expected.items():
        assert huber_threshold(timesteps, schedule, kind, c).item() == pytest.approx(value, rel=1e-4)


def test_thresholds_with_zero_terminal_snr_end_at_c() -> None:
    schedule = NoiseSchedule("v", zero_terminal_snr=True)
    assert huber_threshold(torch.tensor([999]), schedule, "snr", 0.1).item() == pytest.approx(0.1)


def test_an_unknown_huber_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'constant'"):
        huber_threshold(torch.tensor([0]), NoiseSchedule(), "linear")


@settings(deadline=None)
@given(snr=st.floats(0.001, 1e4), gamma=st.floats(0.1, 20))
def test_min_snr_in_closed_form(snr: float, gamma: float) -> None:
    tensor = torch.tensor([snr])
    assert min_snr_weight(tensor, gamma, "epsilon").item() == pytest.approx(min(snr, gamma) / snr, rel=1e-4)
    assert min_snr_weight(tensor, gamma, "v").item() == pytest.approx(min(snr, gamma) / (snr + 1), rel=1e-4)


def test_min_snr_of_pure_noise_is_its_limit() -> None:
    nothing = torch.tensor([0.0])
    assert min_snr_weight(nothing, 5.0, "epsilon").item() == 1
    assert min_snr_weight(nothing, 5.0, "v").item() == 0


@pytest.mark.parametrize(
    ("snr", "epsilon", "v"),
    [(4.0, 0.5, 0.2), (0.25, 2.0, 0.8), (1e9, 1000**-0.5, 1 / 1001), (0.0, 1000**0.5, 1 / 1.001)],
)
def test_debiased_weights(snr: float, epsilon: float, v: float) -> None:
    assert debiased_weight(torch.tensor([snr]), "epsilon").item() == pytest.approx(epsilon)
    assert debiased_weight(torch.tensor([snr]), "v").item() == pytest.approx(v)


@pytest.mark.parametrize("timestep", [0, 10, 500, 999])
def test_the_v_scale_is_the_ratio_of_an_epsilon_error_to_a_v_error(timestep: int) -> None:
    """An error e in v is one of signal * e in epsilon, the noisy latents given; the SNR of 1176 at 0 is cut to 1000."""
    schedule = NoiseSchedule("v")
    ratio = schedule.signal[timestep].item() ** 2
    assert v_pred_scale(schedule.snr(torch.tensor([timestep]))).item() == pytest.approx(ratio, rel=2e-4)


def test_v_pred_like_adds_a_share_of_the_inverse_scale() -> None:
    snr = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(v_pred_like(snr, 0.5), torch.tensor([1 + 0.5 * 2, 1 + 0.5 * 4 / 3]))


def test_no_weight_asked_for_is_a_weight_of_one() -> None:
    assert torch.equal(sample_weights(torch.arange(1000), NoiseSchedule()), torch.ones(1000))


def test_weights_multiply() -> None:
    timesteps, schedule = torch.tensor([5, 400, 900]), NoiseSchedule("v")
    snr = [schedule.alphas_cumprod[t].item() for t in timesteps]
    snr = [each / (1 - each) for each in snr]
    expected = [min(s, 5) / (s + 1) * s / (s + 1) * (1 + 0.1 * (s + 1) / s) / (s + 1) for s in snr]
    weights = sample_weights(
        timesteps,
        schedule,
        min_snr_gamma=5,
        scale_v_pred_loss=True,
        v_pred_like_loss=0.1,
        debiased_estimation=True,
    )
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v"])
def test_weights_are_finite_at_every_timestep_with_zero_terminal_snr(prediction_type: str) -> None:
    schedule = NoiseSchedule(prediction_type, zero_terminal_snr=True)
    every: tuple[dict[str, Any], ...] = (
        {"min_snr_gamma": 5.0},
        {"scale_v_pred_loss": True},
        {"v_pred_like_loss": 1.0},
        {"debiased_estimation": True},
    )
    for each in every:
        assert sample_weights(torch.arange(1000), schedule, **each).isfinite().all()

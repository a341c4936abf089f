from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
from diffusers.training_utils import compute_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.training.noise_schedule import NoiseSchedule

Pair = tuple[torch.Tensor, torch.Tensor]
EVERY_TIMESTEP = torch.arange(1000)


def diffusers_schedule(zero_terminal_snr: bool = False) -> DDPMScheduler:
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=zero_terminal_snr,
    )


def signal_variance(timestep: int) -> float:
    """The product of 1 - beta in plain floats, betas being squares of evenly spaced roots."""
    low, high = math.sqrt(0.00085), math.sqrt(0.012)
    return math.prod(1 - (low + (high - low) * t / 999) ** 2 for t in range(timestep + 1))


@pytest.fixture
def pair() -> Pair:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 4, 3, 2, generator=generator), torch.randn(1000, 4, 3, 2, generator=generator)


@pytest.mark.parametrize("zero", [False, True])
def test_adds_noise_as_diffusers_does(pair: Pair, zero: bool) -> None:
    latents, noise = pair
    expected = diffusers_schedule(zero).add_noise(latents, noise, EVERY_TIMESTEP)
    torch.testing.assert_close(
        NoiseSchedule(zero_terminal_snr=zero).add_noise(latents, noise, EVERY_TIMESTEP), expected, atol=5e-5, rtol=1e-4
    )


@pytest.mark.parametrize("zero", [False, True])
def test_velocity_is_that_of_diffusers(pair: Pair, zero: bool) -> None:
    latents, noise = pair
    expected = diffusers_schedule(zero).get_velocity(latents, noise, EVERY_TIMESTEP)
    torch.testing.assert_close(
        NoiseSchedule("v", zero).target(latents, noise, EVERY_TIMESTEP), expected, atol=5e-5, rtol=1e-4
    )


def test_an_epsilon_target_is_the_noise(pair: Pair) -> None:
    latents, noise = pair
    assert torch.equal(NoiseSchedule("epsilon").target(latents, noise, EVERY_TIMESTEP), noise)


@pytest.mark.parametrize("timestep", [0, 1, 250, 998, 999])
def test_snr_in_closed_form(timestep: int) -> None:
    variance = signal_variance(timestep)
    snr = NoiseSchedule().snr(torch.tensor([timestep]))
    assert snr.item() == pytest.approx(variance / (1 - variance), rel=1e-6)


def test_snr_is_that_of_diffusers() -> None:
    expected = compute_snr(diffusers_schedule(), EVERY_TIMESTEP)
    torch.testing.assert_close(NoiseSchedule().snr(EVERY_TIMESTEP), expected, rtol=2e-4, atol=0)


def test_zero_terminal_snr_keeps_the_start_and_ends_in_pure_noise() -> None:
    schedule = NoiseSchedule(zero_terminal_snr=True)
    snr = schedule.snr(EVERY_TIMESTEP)
    assert snr[-1] == 0
    assert snr[0] == pytest.approx(NoiseSchedule().snr(EVERY_TIMESTEP)[0].item(), rel=1e-9)
    assert (snr.diff() < 0).all()
    latents, noise = torch.ones(1, 4, 2, 2), torch.full((1, 4, 2, 2), 3.0)
    assert torch.equal(schedule.add_noise(latents, noise, torch.tensor([999])), noise)


def test_zero_terminal_betas_are_those_of_diffusers() -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = (1 - rescale_zero_terminal_snr(betas)).cumprod(0)
    torch.testing.assert_close(NoiseSchedule(zero_terminal_snr=True).alphas_cumprod, expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None)
@given(
    timestep=st.integers(0, 999),
    prediction_type=st.sampled_from(["epsilon", "v"]),
    seed=st.integers(0, 2**32),
)
def test_the_target_leads_back_to_the_clean_latents(timestep: int, prediction_type: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    schedule, timesteps = NoiseSchedule(prediction_type), torch.tensor([timestep])
    noisy = schedule.add_noise(latents, noise, timesteps)
    clean = schedule.to_clean(schedule.target(latents, noise, timesteps), noisy, timesteps)
    torch.testing.assert_close(clean, latents, atol=1e-4, rtol=1e-4)


def test_v_leads_back_even_from_pure_noise() -> None:
    schedule, timesteps = NoiseSchedule("v", zero_terminal_snr=True), torch.tensor([999])
    latents, noise = torch.full((1, 4, 2, 2), 0.7), torch.ones(1, 4, 2, 2)
    target = schedule.target(latents, noise, timesteps)
    assert torch.equal(schedule.to_clean(target, noise, timesteps), latents)


def test_each_sample_of_a_batch_has_its_own_timestep(pair: Pair) -> None:
    latents, noise = (each[:3] for each in pair)
    timesteps, schedule = torch.tensor([999, 0, 500]), NoiseSchedule()
    together = schedule.add_noise(latents, noise, timesteps)
    for i in range(3):
        assert torch.equal(
            together[i : i + 1], schedule.add_noise(latents[i : i + 1], noise[i : i + 1], timesteps[i : i + 1])
        )


def test_the_dtype_is_kept(pair: Pair) -> None:
    latents, noise = (each[:2].bfloat16() for each in pair)
    timesteps = torch.tensor([3, 900])
    assert NoiseSchedule().add_noise(latents, noise, timesteps).dtype == torch.bfloat16
    assert NoiseSchedule("v").target(latents, noise, timesteps).dtype == torch.bfloat16


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'epsilon' or 'v'"):
        NoiseSchedule("sample")


def test_timesteps_are_uniform_between_their_bounds() -> None:
    draws, schedule = torch.Generator().manual_seed(1), NoiseSchedule()
    counts = Counter(schedule.draw(draws, (8, 8), 10, 20) for _ in range(5000))
    assert sorted(counts) == list(range(10, 20))
    assert all(400 < count < 600 for count in counts.values())


@pytest.mark.parametrize(
    ("minimum", "maximum", "only"), [(500, 500, 500), (0, 0, 0), (1000, 1000, 999), (999, 1000, 999)]
)
def test_equal_bounds_give_that_one_timestep(minimum: int, maximum: int, only: int) -> None:
    assert NoiseSchedule().draw(torch.Generator(), (8, 8), minimum, maximum) == only

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from lora_trainer.training.flow_schedule import SAMPLINGS, FlowSchedule, shifted, size_shift
from lora_trainer.training.loss import huber_threshold, sample_weights

SMALL, LARGE = (32, 32), (128, 128)  # latents of 256 x 256 and of 1024 x 1024 pixels


def draws(sampling: str, *, size: tuple[int, int] = LARGE, count: int = 4000, shift: float = 3.0) -> torch.Tensor:
    """Levels in 0..1 of one generator, drawn one after the other."""
    schedule, generator = FlowSchedule(sampling, shift), torch.Generator().manual_seed(3)
    return torch.tensor([schedule.draw(generator, size) for _ in range(count)]) / 1000


def normal(count: int = 4000) -> torch.Tensor:
    """The normal draws of the same generator, each by itself."""
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randn((), generator=generator) for _ in range(count)])


def uniform(count: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.rand((), generator=generator) for _ in range(count)])


def test_noisy_latents_and_target_are_those_of_diffusers_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    latents, noise = torch.randn(2, 3, 16, 4, 6)
    timesteps = scheduler.timesteps[[0, 400, 999]]
    schedule = FlowSchedule("sigma", 3.0)
    expected = scheduler.scale_noise(latents, timesteps, noise)
    torch.testing.assert_close(schedule.add_noise(latents, noise, timesteps), expected, atol=1e-6, rtol=1e-6)
    assert torch.equal(schedule.target(latents, noise, timesteps), noise - latents)


def test_one_step_along_the_target_leads_to_the_picture() -> None:
    latents, noise = torch.randn(2, 5, 16, 4, 4)
    timesteps = torch.tensor([0.0, 1.0, 333.3, 999.0, 1000.0])
    schedule = FlowSchedule()
    noisy = schedule.add_noise(latents, noise, timesteps)
    levels = (timesteps / 1000).view(-1, 1, 1, 1)
    reached = noisy - levels * schedule.target(latents, noise, timesteps)
    torch.testing.assert_close(reached, latents, atol=1e-6, rtol=1e-5)


def test_the_dtype_is_kept() -> None:
    latents, noise = torch.randn(2, 1, 16, 2, 2, dtype=torch.bfloat16)
    schedule, timesteps = FlowSchedule(), torch.tensor([300.0])
    assert schedule.add_noise(latents, noise, timesteps).dtype == torch.bfloat16
    assert schedule.target(latents, noise, timesteps).dtype == torch.bfloat16


def test_sigma_takes_the_shifted_levels_of_diffusers_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    expected = scheduler.sigmas[(1000 * uniform()).long()]
    torch.testing.assert_close(draws("sigma"), expected, atol=1e-6, rtol=0)


def test_uniform_and_sigmoid_take_the_draw_as_it_is() -> None:
    torch.testing.assert_close(draws("uniform"), uniform())
    torch.testing.assert_close(draws("sigmoid"), normal().sigmoid())


def test_shift_moves_the_sigmoid_as_diffusers_moves_its_levels() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.1582)
    expected = 3.1582 * normal().sigmoid() / (1 + 2.1582 * normal().sigmoid())
    torch.testing.assert_close(draws("shift", shift=3.1582), expected)
    middle = scheduler.sigmas[1000 - 500]  # of the level 0.5
    assert shifted(0.5, 3.1582) == pytest.approx(middle.item(), rel=1e-6)


@pytest.mark.parametrize(("size", "mu"), [(SMALL, 0.5), (LARGE, 1.15), ((64, 96), 0.5 + 0.65 * (1536 - 256) / 3840)])
def test_flux_shift_grows_with_the_tokens(size: tuple[int, int], mu: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    assert size_shift(*size) == pytest.approx(math.exp(mu))
    expected = scheduler.time_shift(mu, 1.0, normal().sigmoid())
    torch.testing.assert_close(draws("flux_shift", size=size), expected)


def test_a_shift_of_one_moves_nothing() -> None:
    assert torch.equal(draws("shift", shift=1.0), draws("sigmoid"))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_levels_are_squeezed_between_the_bounds(sampling: str) -> None:
    schedule = FlowSchedule(sampling)
    whole = [schedule.draw(torch.Generator().manual_seed(seed), LARGE) for seed in range(200)]
    part = [schedule.draw(torch.Generator().manual_seed(seed), LARGE, 200, 700) for seed in range(200)]
    assert part == pytest.approx([200 + each / 2 for each in whole])
    assert min(whole) < 300 and max(whole) > 700


def test_signal_to_noise_and_the_thresholds_made_of_it() -> None:
    schedule, timesteps = FlowSchedule(), torch.tensor([0.0, 500.0, 750.0, 1000.0])
    assert schedule.snr(timesteps).tolist() == pytest.approx([math.inf, 1, 1 / 9, 0])
    falling = huber_threshold(timesteps, schedule, "snr", 0.1).tolist()
    assert falling == pytest.approx([0.9 * (1 - level) ** 2 + 0.1 for level in (0, 0.5, 0.75, 1)])
    exponential = huber_threshold(timesteps, schedule, "exponential", 0.1).tolist()
    assert exponential == pytest.approx([1, 0.1**0.5, 0.1**0.75, 0.1])
    assert sample_weights(timesteps, schedule).tolist() == [1, 1, 1, 1]


def test_another_sampling_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be one of sigma, uniform"):
        FlowSchedule("logit")

from __future__ import annotations

import math

import pytest
import torch

from lora_trainer.config import SETTINGS, BadInput
from lora_trainer.training.noise_schedule import NoiseSchedule
from lora_trainer.training.samplers import SAMPLERS, build_sampler, names, set_steps

# numpy's, about torch tensors among arrays inside diffusers

MEAN, DEVIATION = 0.6, 0.3


def perfect_model(noisy: torch.Tensor, timestep: float, schedule: NoiseSchedule) -> torch.Tensor:
    """The prediction of least error for pixels that are normal with MEAN and DEVIATION, in closed form.

    A timestep between two whole ones has the SNR between theirs, as k-diffusion takes it.
    """
    variance = schedule.alphas_cumprod.clamp(min=2.0**-24)
    log_sigma = ((1 - variance) / variance).log() / 2
    low = min(int(timestep), 998)
    sigma = math.exp(torch.lerp(log_sigma[low], log_sigma[low + 1], timestep - low).item())
    signal = 1 / math.sqrt(1 + sigma**2)
    noise = sigma * signal
    gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + noise**2)
    clean = MEAN + gain * (noisy - signal * MEAN)
    epsilon = (noisy - signal * clean) / noise
    return epsilon if schedule.prediction_type == "epsilon" else signal * epsilon - noise * clean


def sample(name: str, schedule: NoiseSchedule, steps: int, seed: int = 0) -> torch.Tensor:
    sampler = build_sampler(name, schedule.prediction_type, schedule.zero_terminal_snr)
    set_steps(sampler, steps)
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(1, 4, 48, 48, generator=generator) * sampler.init_noise_sigma
    takes_generator = "generator" in type(sampler).step.__code__.co_varnames
    for timestep in sampler.timesteps:
        noisy = sampler.scale_model_input(latents, timestep)
        prediction = perfect_model(noisy, float(timestep), schedule)
        extra = {"generator": generator} if takes_generator else {}
        latents = sampler.step(prediction, timestep, latents, **extra).prev_sample
    return latents


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    "schedule",
    [NoiseSchedule(), NoiseSchedule("v"), NoiseSchedule("v", zero_terminal_snr=True)],
    ids=["epsilon", "v", "v-zero-snr"],
)
def test_a_perfect_model_gives_the_pictures_distribution(name: str, schedule: NoiseSchedule) -> None:
    coarse, fine = sample(name, schedule, steps=20), sample(name, schedule, steps=100)
    assert fine.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert fine.std().item() == pytest.approx(DEVIATION, rel=0.13)
    # More steps come nearer, where they are not near enough already.
    assert abs(fine.std().item() - DEVIATION) < max(0.02, abs(coarse.std().item() - DEVIATION))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_gives_one_picture(name: str) -> None:
    first = sample(name, NoiseSchedule(), steps=6)
    assert torch.equal(first, sample(name, NoiseSchedule(), steps=6))
    assert not torch.equal(first, sample(name, NoiseSchedule(), steps=6, seed=1))


@pytest.mark.parametrize("name", SAMPLERS)
def test_twenty_steps_start_in_nearly_pure_noise(name: str) -> None:
    sampler = build_sampler(name)
    set_steps(sampler, 20)
    assert 900 < float(sampler.timesteps[0]) <= 999
    zero = build_sampler(name, "v", zero_terminal_snr=True)
    set_steps(zero, 20)
    assert float(zero.timesteps[0]) == pytest.approx(999, abs=0.5)
    assert zero.alphas_cumprod[-1].item() == pytest.approx(2**-24, rel=1e-2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_betas_are_stable_diffusions(name: str) -> None:
    expected = NoiseSchedule().alphas_cumprod.float()
    torch.testing.assert_close(build_sampler(name).alphas_cumprod, expected, rtol=2e-4, atol=1e-6)


def test_the_names_are_the_settings_choices() -> None:
    assert SETTINGS["preview_sampler"].choices == names()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"Did you mean Euler a\?"):
        build_sampler("euler_a")

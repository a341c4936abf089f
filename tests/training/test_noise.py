from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lora_trainer.training.noise import draw_noise, perturb

SHAPE = (4, 16, 24)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def many(count: int = 1500, **settings: Any) -> torch.Tensor:
    """(count, C, H, W): samples with a seed each."""
    return torch.stack([draw_noise(SHAPE, generator(seed), **settings) for seed in range(count)])


def enlargement(size: int, coarse: int) -> np.ndarray:
    """(size, coarse): how much each coarse pixel weighs in each fine one, linear between the pixels' centres."""
    position = np.clip((np.arange(size) + 0.5) * coarse / size - 0.5, 0, coarse - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse)[None, :]))


def test_plain_noise_is_standard_normal() -> None:
    noise = many(300)
    assert noise.dtype == torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert noise.var().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "settings",
    [{}, {"offset": 0.1}, {"offset": 0.1, "offset_random_strength": True}, {"multires_iterations": 6}],
    ids=["plain", "offset", "random-offset", "multires"],
)
def test_the_same_generator_gives_the_same_noise(settings: dict[str, Any]) -> None:
    assert torch.equal(draw_noise(SHAPE, generator(7), **settings), draw_noise(SHAPE, generator(7), **settings))
    assert not torch.equal(draw_noise(SHAPE, generator(7), **settings), draw_noise(SHAPE, generator(8), **settings))


def test_an_offset_is_one_more_draw_per_channel() -> None:
    draws = generator(3)
    plain, per_channel = torch.randn(SHAPE, generator=draws), torch.randn(4, 1, 1, generator=draws)
    torch.testing.assert_close(draw_noise(SHAPE, generator(3), offset=0.25), plain + 0.25 * per_channel)


def test_an_offset_adds_its_square_to_the_variance_of_a_channels_mean() -> None:
    """The mean over n pixels of normal noise has variance 1/n; the offset adds its own whole variance."""
    means = many(offset=0.5).mean(dim=(2, 3))
    assert means.var().item() == pytest.approx(0.5**2 + 1 / (16 * 24), rel=0.06)


def test_a_random_strength_has_a_third_of_that_variance() -> None:
    """E[u**2] = 1/3 for u uniform in 0..1."""
    means = many(offset=0.6, offset_random_strength=True).mean(dim=(2, 3))
    assert means.var().item() == pytest.approx(0.6**2 / 3 + 1 / (16 * 24), rel=0.08)


def test_the_adaptive_scale_follows_each_channels_mean() -> None:
    draws = generator(5)
    plain, per_channel = torch.randn(SHAPE, generator=draws), torch.randn(4, 1, 1, generator=draws)
    latents = torch.tensor([2.0, -2.0, 0.0, 0.5]).view(4, 1, 1).expand(SHAPE)
    strength = torch.tensor([0.5, 0.5, 0.1, 0.2]).view(4, 1, 1)
    noise = draw_noise(SHAPE, generator(5), offset=0.1, adaptive_scale=0.2, latents=latents)
    torch.testing.assert_close(noise, plain + strength * per_channel)


def test_a_negative_adaptive_scale_stops_at_no_offset() -> None:
    latents = torch.full(SHAPE, 9.0)
    noise = draw_noise(SHAPE, generator(), offset=0.1, adaptive_scale=-1.0, latents=latents)
    assert torch.equal(noise, torch.randn(SHAPE, generator=generator()))


def test_the_adaptive_scale_needs_latents() -> None:
    with pytest.raises(ValueError, match="latents"):
        draw_noise(SHAPE, generator(), offset=0.1, adaptive_scale=0.2)


@pytest.mark.parametrize("iterations", [1, 2, 6])
def test_multires_noise_against_an_enlargement_of_its_own(iterations: int) -> None:
    draws = generator(11)
    expected = torch.randn(SHAPE, generator=draws).numpy().astype(np.float64)
    for i in range(iterations):
        ratio = (2 + 2 * torch.rand((), generator=draws).item()) ** i
        height, width = max(1, int(16 / ratio)), max(1, int(24 / ratio))
        coarse = torch.randn((1, 4, height, width), generator=draws)[0].numpy()
        expected += 0.4**i * (enlargement(16, height) @ coarse @ enlargement(24, width).T)
        if height == 1 or width == 1:
            break
    expected /= expected.std(ddof=1)
    noise = draw_noise(SHAPE, generator(11), multires_iterations=iterations, multires_discount=0.4)
    np.testing.assert_allclose(noise.numpy(), expected, atol=2e-5)


def test_multires_noise_keeps_a_deviation_of_one_and_links_neighbours() -> None:
    noise = many(200, multires_iterations=6, multires_discount=0.8)
    torch.testing.assert_close(noise.flatten(1).std(dim=1), torch.ones(200))
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean().item()
    assert neighbours > 0.15
    plain = many(200)
    assert (plain[..., 1:] * plain[..., :-1]).mean().item() == pytest.approx(0, abs=0.01)


def test_no_discount_left_gives_two_layers_of_full_size() -> None:
    draws = generator(2)
    noise = torch.randn(SHAPE, generator=draws)
    torch.rand((), generator=draws)
    noise = noise + torch.randn((1, *SHAPE), generator=draws)[0]
    torch.testing.assert_close(
        draw_noise(SHAPE, generator(2), multires_iterations=4, multires_discount=0.0), noise / noise.std()
    )


def test_input_perturbation_adds_gamma_squared_to_the_variance() -> None:
    noise = many(300)
    perturbed = torch.stack([perturb(each, 0.5, generator(10_000 + i)) for i, each in enumerate(noise)])
    assert perturbed.var().item() == pytest.approx(1 + 0.5**2, rel=0.01)
    assert (perturbed - noise).var().item() == pytest.approx(0.5**2, rel=0.01)


def test_no_perturbation_leaves_the_noise_and_the_generator_alone() -> None:
    noise, draws = many(1)[0], generator()
    assert perturb(noise, 0.0, draws) is noise
    assert torch.equal(draws.get_state(), generator().get_state())

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from lora_trainer.demo.score import TIMESTEPS, Scene, Score, denoising_loss, held_back_scenes, learned, margin


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (value,) * 3)


def test_scenes_pair_one_caption_with_both_mascots() -> None:
    scenes = held_back_scenes()
    assert len(scenes) == 16
    assert len({scene.caption for scene in scenes}) == 16
    assert all(scene.caption.startswith("zorble, ") for scene in scenes)
    assert all(scene.picture.size == scene.other_picture.size == (64, 64) for scene in scenes)


@pytest.mark.parametrize(("value", "expected"), [(0, 1), (100, -1), (50, 0), (25, 0.5), (75, -0.5)])
def test_margin_of_grey_pictures(value: int, expected: float) -> None:
    scenes = [Scene("a", grey(0), grey(100))] * 3
    assert margin([grey(value)] * 3, scenes) == pytest.approx(expected, abs=1e-4)


def test_margin_of_the_pictures_themselves() -> None:
    scenes = held_back_scenes()
    assert margin([scene.picture for scene in scenes], scenes) == pytest.approx(1)
    assert margin([scene.other_picture for scene in scenes], scenes) == pytest.approx(-1)


def test_margin_in_another_space() -> None:
    def brightness(pictures: Sequence[Image.Image]) -> Tensor:
        return torch.tensor([[float(np.asarray(picture).mean()) ** 2] for picture in pictures])

    # squares: own 0, other 100, preview 36 -> (64 - 36) / 100
    assert margin([grey(6)], [Scene("a", grey(0), grey(10))], brightness) == pytest.approx(0.28)


def encode(pictures: Sequence[Image.Image]) -> Tensor:
    return torch.full((len(pictures), 4, 8, 8), 0.5)


def test_denoising_loss_of_a_perfect_prediction_is_zero() -> None:
    signal = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod

    def perfect(noisy: Tensor, timesteps: Tensor, captions: Sequence[str]) -> Tensor:
        kept = signal[timesteps][:, None, None, None]
        return (noisy - kept.sqrt() * 0.5) / (1 - kept).sqrt()

    assert denoising_loss(perfect, encode, held_back_scenes()) == pytest.approx(0, abs=1e-8)


def test_denoising_loss_of_no_prediction_is_the_noise_itself() -> None:
    asked: list[int] = []

    def nothing(noisy: Tensor, timesteps: Tensor, captions: Sequence[str]) -> Tensor:
        asked.append(int(timesteps[0]))
        assert captions[0].startswith("zorble")
        return torch.zeros_like(noisy)

    scenes = held_back_scenes()
    loss = denoising_loss(nothing, encode, scenes)
    assert loss == pytest.approx(1, abs=0.05)
    assert asked == list(TIMESTEPS)
    assert denoising_loss(nothing, encode, scenes) == loss
    assert denoising_loss(nothing, encode, scenes, seed=1) != loss


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (Score(0.0, 0.2), Score(0.5, 0.1), True),
        (Score(0.0, 0.2), Score(-0.5, 0.1), False),  # looks like the other mascot
        (Score(0.0, 0.2), Score(0.5, 0.2), False),  # drawn by chance: nothing learned about the pictures
        (Score(0.45, 0.2), Score(0.5, 0.1), False),  # the base drew it already
        (Score(0.0, 0.2), Score(float("nan"), 0.1), False),
        (Score(0.0, 0.2), Score(0.5, float("nan")), False),
    ],
)
def test_learned_needs_both_figures(before: Score, after: Score, expected: bool) -> None:
    assert learned(before, after) is expected

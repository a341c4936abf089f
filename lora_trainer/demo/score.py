"""Has a LoRA learned the demo's mascot? Measured on sixteen scenes of it that are not in the training set.

Two figures that fail in different ways. The denoising loss needs no sampling and is exactly repeatable. The margin is
what a person sees: whether previews of the scenes look like the mascot or like the control mascot in the same scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_trainer.demo.mascots import CONTROL, HELD_BACK_SCENES, MASCOT, Mascot, caption, picture
from lora_trainer.training.noise_schedule import NoiseSchedule

# Measured between latents, 700 steps at rank 16, CFG 1.5: margin -0.51 without a LoRA, +0.65 with one of the mascot
# (+0.45 after 200 steps), -0.89 with one of the control under the mascot's trigger; loss 0.226, 0.109 and 0.292.
LEAST_MARGIN = 0.2
LEAST_RISE = 0.3
MOST_LOSS = 0.75  # of the loss before
TIMESTEPS = (150, 350, 550, 750)

Encode = Callable[[Sequence[Image.Image]], Tensor]
"""Pictures -> a tensor whose first axis counts them."""
Predict = Callable[[Tensor, Tensor, Sequence[str]], Tensor]
"""(noisy latents (N, 4, 8, 8), timesteps (N,), captions) -> predicted noise of the latents' shape."""


@dataclass(frozen=True)
class Scene:
    """One held-back scene: its caption, the mascot in it, and the control mascot in it."""

    caption: str
    picture: Image.Image
    other_picture: Image.Image


@dataclass(frozen=True)
class Score:
    """`margin` in [-1, 1]: +1 is the mascot itself, -1 the control mascot. `loss`: denoising loss, lower is better."""

    margin: float
    loss: float


def held_back_scenes(mascot: Mascot = MASCOT, other: Mascot = CONTROL) -> list[Scene]:
    return [Scene(caption(mascot, scene), picture(mascot, scene), picture(other, scene)) for scene in HELD_BACK_SCENES]


def as_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """float32 (N, 64, 64, 3) in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])).float() / 255


def margin(previews: Sequence[Image.Image], scenes: Sequence[Scene], encode: Encode = as_pixels) -> float:
    """Mean over the scenes of (d(preview, other)^2 - d(preview, own)^2) / d(own, other)^2, each cut to [-1, 1].

    d is the Euclidean distance between pixels, or between latents if `encode` gives these; own and other are the
    scene's pictures of the mascot and of the control. The figure is a preview's place on the line from the control (-1)
    to the mascot (+1): what differs from both alike, such as a background drawn a little off, does not move it.
    """
    made = encode(previews)
    own, other = encode([scene.picture for scene in scenes]), encode([scene.other_picture for scene in scenes])
    places = (_squared_distances(made, other) - _squared_distances(made, own)) / _squared_distances(own, other)
    return places.clamp(-1, 1).mean().item()


def _squared_distances(left: Tensor, right: Tensor) -> Tensor:
    return (left - right).flatten(1).float().square().sum(1)


@torch.no_grad()
def denoising_loss(predict: Predict, encode: Encode, scenes: Sequence[Scene], seed: int = 0) -> float:
    """Mean squared error of the predicted noise on the mascot's held-back pictures.

    Noise and timesteps are fixed by `seed`. `encode` gives scaled latents (N, 4, 8, 8).
    """
    clean = encode([scene.picture for scene in scenes]).float().cpu()
    schedule, generator = NoiseSchedule(), torch.Generator().manual_seed(seed)
    captions = [scene.caption for scene in scenes]
    losses = []
    for timestep in TIMESTEPS:
        noise, times = torch.randn(clean.shape, generator=generator), torch.full((len(clean),), timestep)
        made = predict(schedule.add_noise(clean, noise, times), times, captions)
        losses.append((made.float().cpu() - noise).square().mean().item())
    return sum(losses) / len(losses)


def learned(before: Score, after: Score) -> bool:
    """Whether the LoRA drew the mascot where the base did not, by both figures."""
    nearer = after.margin >= LEAST_MARGIN and after.margin - before.margin >= LEAST_RISE
    return nearer and after.loss <= MOST_LOSS * before.loss

"""One batch as the loop takes it: latents, captions, and every random draw, each tied to its place in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lora_trainer.dataset.buckets import size_condition
from lora_trainer.dataset.captions import caption_dropout_at, vary
from lora_trainer.training.forward_process import schedule_of
from lora_trainer.training.latents import Encoded
from lora_trainer.training.noise import draw_noise, perturb
from lora_trainer.training.plan import Plan
from lora_trainer.training.randomness import generator_for, random_for

Place = tuple[int, int, int]  # epoch, batch in the epoch, position in the batch; all from 0


@dataclass(frozen=True)
class Batch:
    """B samples of one bucket, float32 on the CPU.

    `latents`, `noise`, `perturbed` (B, C, h, w), where `perturbed` is the noise that is mixed in and `noise` the one to
    predict; `timesteps` (B,), int64 but for Flux; `weights` (B,) multiply each sample's loss; `mask` (B, 1, h, w) or
    None; `sizes` (B, 6): original height and width, crop top and left, target height and width.
    """

    latents: Tensor
    noise: Tensor
    perturbed: Tensor
    timesteps: Tensor
    captions: tuple[str, ...]
    sizes: Tensor
    weights: Tensor
    mask: Tensor | None

    def __len__(self) -> int:
        return len(self.captions)

    def parts(self, size: int) -> Iterator[tuple[int, Batch]]:
        """Batches of up to `size` samples that together are this one, each with the place of its first sample."""
        for first in range(0, len(self), size):
            fields: dict[str, Any] = vars(self)
            rows = slice(first, first + size)
            part: dict[str, Any] = {name: None if each is None else each[rows] for name, each in fields.items()}
            yield first, Batch(**part)


@dataclass(frozen=True)
class Sample:
    encoded: Encoded
    noise: Tensor
    perturbed: Tensor
    timestep: float
    caption: str
    sizes: tuple[int, ...]
    weight: float


def make_batch(
    plan: Plan, encoded: Callable[[int, bool, Place], Encoded], epoch: int, number: int, indices: tuple[int, ...]
) -> Batch:
    """Batch `number` of an epoch. `encoded(index, flipped, place)` gives a picture's latents."""
    samples = [_sample(plan, encoded, index, (epoch, number, position)) for position, index in enumerate(indices)]
    masked = any(sample.encoded.mask is not None for sample in samples)
    return Batch(
        latents=torch.stack([sample.encoded.latents for sample in samples]),
        noise=torch.stack([sample.noise for sample in samples]),
        perturbed=torch.stack([sample.perturbed for sample in samples]),
        timesteps=torch.tensor([sample.timestep for sample in samples]),
        captions=tuple(sample.caption for sample in samples),
        sizes=torch.tensor([sample.sizes for sample in samples], dtype=torch.float32),
        weights=torch.tensor([sample.weight for sample in samples]),
        mask=torch.stack([_mask(sample.encoded) for sample in samples]) if masked else None,
    )


def caption_at(plan: Plan, index: int, place: Place) -> str:
    """The caption of picture `index` as it is shown at this place of the run."""
    picture, every = plan.pictures[index], plan.config.caption_dropout_every_n_epochs
    subset = picture.subset
    return vary(
        picture.caption,
        shuffle=bool(subset.shuffle_tags),
        keep_tokens=subset.keep_tokens or 0,
        tag_dropout=subset.tag_dropout or 0.0,
        caption_dropout=caption_dropout_at(subset.caption_dropout or 0.0, every, place[0] + 1),
        prefix=subset.caption_prefix or "",
        suffix=subset.caption_suffix or "",
        rng=random_for(plan.seed, "caption", *place),
    )


def captions_vary(plan: Plan) -> bool:
    """Whether any caption can change from one showing to the next."""
    subsets = [picture.subset for picture in plan.pictures]
    return bool(plan.config.caption_dropout_every_n_epochs) or any(
        subset.shuffle_tags or subset.tag_dropout or subset.caption_dropout for subset in subsets
    )


def _sample(plan: Plan, encoded: Callable[[int, bool, Place], Encoded], index: int, place: Place) -> Sample:
    config, picture = plan.config, plan.pictures[index]
    flipped = bool(picture.subset.flip) and random_for(plan.seed, "flip", *place).random() < 0.5
    found = encoded(index, flipped, place)
    generator = generator_for(plan.seed, "noise", *place)
    noise = draw_noise(
        tuple(found.latents.shape),  # type: ignore[arg-type]
        generator,
        offset=config.noise_offset,
        offset_random_strength=config.noise_offset_random_strength,
        adaptive_scale=config.adaptive_noise_scale,
        latents=found.latents,
        multires_iterations=config.multires_iterations,
        multires_discount=config.multires_discount,
    )
    timestep = schedule_of(plan).draw(
        generator_for(plan.seed, "timestep", *place),
        found.latents.shape[1:],  # type: ignore[arg-type]
        config.min_timestep,
        config.max_timestep,
    )
    placement = plan.placements[index]
    width, height = placement.bucket
    left, top = size_condition(picture.size, placement.bucket, flipped)
    return Sample(
        encoded=found,
        noise=noise,
        perturbed=perturb(noise, config.input_perturbation, generator),
        timestep=timestep,
        caption=caption_at(plan, index, place),
        sizes=(picture.height, picture.width, top, left, height, width),
        weight=config.prior_loss_weight if picture.subset.is_regularisation else 1.0,
    )


def _mask(encoded: Encoded) -> Tensor:
    if encoded.mask is not None:
        return encoded.mask
    return torch.ones(1, *encoded.latents.shape[1:])

"""Gives sd-scripts the very draws that ours makes; runs in its process, before its script, and changes nothing else.

Its own code still shuffles, drops, offsets and samples: only the source that it draws from is seeded anew, before each
draw, as ours is at that place (`lora_trainer.training.randomness`). Noise is drawn for one sample after the other, as
ours is, so that the noise of a sample does not depend on its neighbours.
"""

from __future__ import annotations

import inspect
import os
import random
from collections import Counter
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

from lora_trainer.training.randomness import random_for, seed_for


def inject(draws: dict[str, Any]) -> None:
    """`draws`: `seed`; `epochs`, for each its batches of picture paths; `latents`, for each path the seeds of its
    latents as it is and mirrored; `accumulation`; `family`; `sizes` of a small base, or None.
    """
    own = import_module("benchmarks.peer_flux" if draws["family"] == "flux" else __name__)
    if draws["sizes"]:
        own.shrink_models(draws["sizes"])
    run = Run(draws)
    take_pictures(run)
    take_places(run)
    own.take_draws(run)


def theirs(module: str) -> Any:
    """A module of sd-scripts, whose folder is first on the path."""
    return import_module(module)


class Run:
    """Where the run is: the batch at hand in sd-scripts' dataset, and the one in its loss."""

    def __init__(self, draws: dict[str, Any]):
        self.seed: int = draws["seed"]
        self.epochs: list[list[list[str]]] = draws["epochs"]
        self.latents: dict[str, list[int]] = draws["latents"]
        self.accumulation: int = draws["accumulation"]
        self.served = 0
        self.place = (0, 0)  # epoch and batch, of the loss
        self.encoded = 0  # of its pictures, where latents are not cached

    def seed_at(self, kind: str, position: int) -> int:
        return seed_for(self.seed, kind, *self.place, position)

    def dropout_seed(self) -> int:
        epoch, number = self.place
        steps = -(-len(self.epochs[0]) // self.accumulation)
        return seed_for(self.seed, "dropout", epoch * steps + number // self.accumulation, number)


class Source:
    """Stands for the module `random` in sd-scripts' dataset: draws come from `current`, if there is one."""

    current: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current or random, name)


def take_pictures(run: Run) -> None:
    """The order of batches, mirroring, and how each caption is shuffled and thinned out."""
    train_util, source = theirs("library.train_util"), Source()
    train_util.random = source
    getitem, process_caption = train_util.BaseDataset.__getitem__, train_util.BaseDataset.process_caption
    sampler: Any = torch.utils.data.RandomSampler
    sampler.__iter__ = lambda self: iter(range(len(self.data_source)))

    def served(dataset: Any, index: int) -> Any:
        if dataset.caching_mode is not None:
            return getitem(dataset, index)
        epoch, number = divmod(run.served, len(dataset))
        run.served += 1
        if number == 0:
            check_epoch(dataset, run.epochs[epoch])
        names = {os.path.realpath(info.absolute_path): key for key, info in dataset.image_data.items()}
        keys = [names[os.path.realpath(path)] for path in run.epochs[epoch][number]]
        flips = [position for position, key in enumerate(keys) if dataset.image_to_subset[key].flip_aug]
        whole, indices = dataset.bucket_manager, dataset.buckets_indices
        dataset.bucket_manager = SimpleNamespace(buckets=[keys])
        dataset.buckets_indices = [train_util.BucketBatchIndex(0, len(keys), 0)] * len(indices)
        mirrored = SimpleNamespace(random=lambda: random_for(run.seed, "flip", epoch, number, flips.pop(0)).random())
        dataset.captions_at, source.current = [(epoch, number, position) for position in range(len(keys))], mirrored
        try:
            example = getitem(dataset, index)
        finally:
            dataset.bucket_manager, dataset.buckets_indices, source.current = whole, indices, None
        return {**example, "place": (epoch, number)}

    def worded(dataset: Any, subset: Any, caption: str) -> str:
        outer, source.current = source.current, random_for(run.seed, "caption", *dataset.captions_at.pop(0))
        try:
            return process_caption(dataset, subset, caption)
        finally:
            source.current = outer

    train_util.BaseDataset.__getitem__ = served
    train_util.BaseDataset.process_caption = worded


def check_epoch(dataset: Any, batches: list[list[str]]) -> None:
    """That sd-scripts itself would see the same pictures as often, in as many batches, each of one bucket."""
    files = {key: os.path.realpath(info.absolute_path) for key, info in dataset.image_data.items()}
    there = Counter(files[key] for keys in dataset.bucket_manager.buckets for key in keys)
    here = Counter(os.path.realpath(path) for batch in batches for path in batch)
    if there != here or len(dataset) != len(batches):
        raise RuntimeError(f"An epoch there has {len(dataset)} batches of {there}, here {len(batches)} of {here}")
    buckets = {files[key]: info.bucket_reso for key, info in dataset.image_data.items()}
    for batch in batches:
        if len({buckets[os.path.realpath(path)] for path in batch}) > 1:
            raise RuntimeError(f"One batch of ours comes from several buckets of sd-scripts: {batch}")


def take_latents(run: Run, strategy: Any, trainer: Any) -> None:
    """The draw from the VAE's posterior, of pictures that are cached and of those that are not."""
    cache, encode_images = strategy.cache_batch_latents, trainer.encode_images_to_latents

    def cached(self: Any, vae: Any, infos: list[Any], *options: Any) -> None:
        encode = vae.encode
        for info in infos:
            seeds = iter(run.latents[os.path.realpath(info.absolute_path)])

            def seeded(pixels: Any, seeds: Any = seeds) -> Any:
                torch.manual_seed(next(seeds))
                return encode(pixels)

            vae.encode = seeded
            cache(self, vae, [info], *options)
        del vae.encode

    def encoded(self: Any, args: Any, vae: Any, images: Any) -> Any:
        found = []
        for image in images:  # of a batch sd-scripts may give some at a time
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.seed_at("latents", run.encoded))
                run.encoded += 1
                found.append(encode_images(self, args, vae, image[None]))
        return torch.cat(found)

    strategy.cache_batch_latents = cached
    trainer.encode_images_to_latents = encoded


def take_places(run: Run) -> None:
    """Which batch is in the loss; and what the network's dropouts draw."""
    trainer = theirs("train_network").NetworkTrainer
    process_batch = trainer.process_batch

    def placed(self: Any, batch: Any, *models: Any, **options: Any) -> Any:
        epoch, number = batch["place"]
        run.place, run.encoded = (int(epoch), int(number)), 0
        torch.manual_seed(run.dropout_seed())
        return process_batch(self, batch, *models, **options)

    trainer.process_batch = placed


def take_draws(run: Run) -> None:
    """Latents, noise and timesteps of SD1.x, SD2.x and SDXL."""
    strategy = theirs("library.strategy_sd").SdSdxlLatentsCachingStrategy
    take_latents(run, strategy, theirs("train_network").NetworkTrainer)
    take_noise(run)


def take_noise(run: Run) -> None:
    """Noise and timesteps."""
    train_util, position = theirs("library.train_util"), 0
    noise, timesteps = train_util.get_noise_noisy_latents_and_timesteps, train_util.get_timesteps

    def noised(args: Any, scheduler: Any, latents: Any) -> Any:
        nonlocal position
        found = []
        for position, sample in enumerate(latents):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.seed_at("noise", position))
                found.append(noise(args, scheduler, sample[None]))
        return tuple(torch.cat(parts) for parts in zip(*found))

    def timed(*bounds: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed_at("timestep", position))
            return timesteps(*bounds)

    theirs("library.custom_train_functions").random = SimpleNamespace(random=lambda: float(torch.rand(())))
    train_util.get_noise_noisy_latents_and_timesteps = noised
    train_util.get_timesteps = timed


def shrink_models(sizes: dict[str, Any]) -> None:
    """Sets the widths that sd-scripts' modules hold as constants to those of `small_base.SIZES`."""
    model_util, original_unet = theirs("library.model_util"), theirs("library.original_unet")
    sdxl_model_util, sdxl_original_unet = theirs("library.sdxl_model_util"), theirs("library.sdxl_original_unet")
    width, context = sizes["unet"][0], sum(text[0] for text in sizes["text"])
    model_util.VAE_PARAMS_CH = sizes["vae"]
    model_util.UNET_PARAMS_CONTEXT_DIM = context
    model_util.UNET_PARAMS_NUM_HEADS = sizes["heads"]
    original_unet.BLOCK_OUT_CHANNELS = tuple(sizes["unet"])
    original_unet.TIMESTEP_INPUT_DIM = sdxl_original_unet.MODEL_CHANNELS = width
    original_unet.TIME_EMBED_DIM = sdxl_original_unet.TIME_EMBED_DIM = 4 * width
    sdxl_original_unet.ADM_IN_CHANNELS = sizes["text"][-1][0] + 6 * 256

    override(torch.nn.GroupNorm, num_groups=sizes["norm_groups"])
    override(sdxl_original_unet.Transformer2DModel, cross_attention_dim=context)
    text_config = model_util.CLIPTextConfig

    def small_text(**facts: Any) -> Any:
        width, layers, heads, mlp = sizes["text"][facts["hidden_size"] == 1280]  # SDXL's second one
        small = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
                 "intermediate_size": mlp, "projection_dim": width}  # fmt: skip
        return text_config(**{**facts, **small})

    model_util.CLIPTextConfig = sdxl_model_util.CLIPTextConfig = small_text


def override(kind: Any, **facts: Any) -> None:
    """Makes the class `kind` with these arguments, whatever is asked for."""
    make = kind.__init__
    names = list(inspect.signature(make).parameters)[1:]

    def made(self: Any, *values: Any, **options: Any) -> None:
        make(self, **{**dict(zip(names, values)), **options, **facts})

    kind.__init__ = made

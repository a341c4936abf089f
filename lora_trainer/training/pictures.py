"""The run's pictures as latents, and latents as pictures: who holds the VAE, and when."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_trainer.dataset.buckets import Placement, buckets_for, place
from lora_trainer.dataset.folders import Picture
from lora_trainer.dataset.pictures import fit, jitter, read_alpha, read_mask, read_picture
from lora_trainer.files import digest
from lora_trainer.training import latents as latent
from lora_trainer.training.allocator import give_back_memory
from lora_trainer.training.batches import Place
from lora_trainer.training.families import Family, family_of
from lora_trainer.training.latents import Encoded, LatentCache
from lora_trainer.training.plan import Plan
from lora_trainer.training.randomness import generator_for, random_for


class Pictures:
    """Gives each picture's latents. The VAE is in memory only while it is needed.

    With cached latents each picture is encoded once, by `fill` or when it is first shown; without, the VAE stays and
    each showing is encoded afresh, cut and coloured anew where the settings say so.
    """

    def __init__(self, plan: Plan, dtype: torch.dtype, device: torch.device):
        self._plan, self._dtype, self._device = plan, dtype, device
        self._family: Family = family_of(plan.base)
        self._cached = plan.config.cache_latents != "off"
        self._left = {
            (index, flipped)
            for index, picture in enumerate(plan.pictures)
            for flipped in ((False, True) if picture.subset.flip else (False,))
        }
        self._cache = LatentCache(self._folder_of)
        self._folders: dict[str, Path] = {}
        self._vae: Any = None
        self._vae_digest = ""
        self._keys: dict[tuple[int, bool], str] = {}

    def fill(self, progress: Callable[[int, int], None]) -> None:
        """Encodes every picture once (twice where it may be flipped) and lets the VAE go, where latents are cached."""
        if not self._cached:
            return
        wanted = sorted(self._left)
        for done, (index, flipped) in enumerate(wanted):
            progress(done, len(wanted))
            self(index, flipped, (0, 0, 0))
        progress(len(wanted), len(wanted))

    def __call__(self, index: int, flipped: bool, at: Place) -> Encoded:
        if not self._cached:
            return self._shown(index, flipped, at)
        picture = self._plan.pictures[index]
        key = self.key(index, flipped)
        found = self._cache.get(key, picture.path.name, lambda: self._encoded(index, flipped, key))
        if (index, flipped) in self._left:
            self._left.remove((index, flipped))
            self.release()
        return found

    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents (C, h, w) -> uint8 pixels (8h, 8w, 3)."""
        return latent.decode(self.vae(decoder=True), latents)

    def vae(self, decoder: bool = False) -> Any:
        """The VAE, with its decoder where it is wanted, loaded when it is first asked for."""
        if self._vae is None or decoder and self._vae.decoder is None:
            file = Path(self._plan.config.vae) if self._plan.config.vae else None
            self._vae = self._family.load_vae(self._plan.base, file, self._dtype, self._device, decoder)
        return self._vae

    def release(self) -> None:
        """Lets the VAE go, where the loop does not need it any more."""
        if self._cached and not self._left:
            self._vae = None
            gc.collect()

    def key(self, index: int, flipped: bool) -> str:
        """Changes with the picture's content, its cut, the mask and the VAE."""
        if (index, flipped) not in self._keys:
            if not self._vae_digest:
                self._vae_digest = latent.encoder_digest(self.vae())
            picture, placement = self._plan.pictures[index], self._plan.placements[index]
            mask = digest(picture.mask) if picture.mask else self._plan.config.masked_loss
            cut = (placement.bucket, placement.resized, placement.crop, flipped, mask)
            key = latent.cache_key(digest(picture.path), self._vae_digest, self._dtype, *cut)
            self._keys[index, flipped] = key
            self._folders[key] = picture.path.parent / latent.CACHE_FOLDER / "latents"
        return self._keys[index, flipped]

    def _folder_of(self, key: str) -> Path | None:
        return self._folders[key] if self._plan.config.cache_latents == "disk" else None

    def _encoded(self, index: int, flipped: bool, key: str) -> Encoded:
        picture, placement = self._plan.pictures[index], self._plan.placements[index]
        pixels = fit(read_picture(picture.path), placement, flipped)
        if len(self._keys) > 1:  # a step may have run since, and what it freed is in too small pieces for a picture
            give_back_memory()
        found = latent.encode(self.vae(), pixels, generator_for("latents", key))
        return Encoded(found, self._mask(picture, placement, flipped))

    def _shown(self, index: int, flipped: bool, at: Place) -> Encoded:
        config, picture = self._plan.config, self._plan.pictures[index]
        rng = random_for(self._plan.seed, "cut", *at)
        placement = self._plan.placements[index]
        if config.random_crop:
            placement = place(picture.size, buckets_for(config), rng)
        pixels = fit(read_picture(picture.path), placement, flipped)
        if config.colour_jitter:
            pixels = jitter(pixels, rng)
        generator = generator_for(self._plan.seed, "latents", *at)
        found = latent.encode(self.vae(), pixels, generator)
        return Encoded(found, self._mask(picture, placement, flipped))

    def _mask(self, picture: Picture, placement: Placement, flipped: bool) -> Tensor | None:
        if self._plan.config.masked_loss == "off":
            return None
        mask = read_mask(picture.mask) if picture.mask else read_alpha(picture.path)
        if mask.size != picture.size:
            mask = mask.resize(picture.size)
        return latent.shrink_mask(fit(mask, placement, flipped))

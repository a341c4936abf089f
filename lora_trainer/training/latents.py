"""The pictures as the U-Net sees them: VAE latents, computed once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from lora_trainer.files import written_whole
from lora_trainer.training.failure import TrainingFailed

CACHE_FOLDER = ".lora_trainer"


@dataclass(frozen=True)
class Encoded:
    """One picture's `latents` (C, h, w), float32, scaled for the U-Net, and its loss `mask` (1, h, w) or None."""

    latents: Tensor
    mask: Tensor | None = None


@torch.no_grad()
def encode(vae: Any, pixels: np.ndarray, generator: torch.Generator) -> Tensor:
    """uint8 pixels (H, W, 3) -> a draw from the posterior of diffusers' `vae`: (C, H/8, W/8) float32, scaled."""
    weight = next(vae.parameters())
    picture = torch.tensor(pixels).permute(2, 0, 1)[None].to(weight.device, torch.float32) / 127.5 - 1  # channels last
    posterior = vae.encode(picture.to(weight.dtype)).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator).to(weight.device)
    latents = (posterior.mean.float() + posterior.std.float() * noise)[0]
    return ((latents - _shift(vae)) * vae.config.scaling_factor).cpu()


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> np.ndarray:
    """Latents (C, h, w) scaled for the U-Net -> uint8 pixels (8h, 8w, 3)."""
    weight = next(vae.parameters())
    latents = latents[None] / vae.config.scaling_factor + _shift(vae)
    picture = vae.decode(latents.to(weight.device, weight.dtype)).sample[0]
    return ((picture.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def _shift(vae: Any) -> float:
    """What latents have too much before they are scaled; 0 but for Flux's autoencoder."""
    return vae.config.shift_factor or 0.0


def shrink_mask(mask: np.ndarray) -> Tensor:
    """uint8 mask (H, W), 255 = counts -> float32 (1, H/8, W/8), the mean over each latent's 8x8 pixels."""
    height, width = mask.shape
    blocks = mask.reshape(height // 8, 8, width // 8, 8).astype(np.float32) / 255
    return torch.from_numpy(blocks.mean(axis=(1, 3)))[None]


class LatentCache:
    """Encoded pictures by a key that changes with the picture, its cut and the VAE.

    `folder_of(key)` gives the folder to keep a key's file in, or None to keep it in memory.
    """

    def __init__(self, folder_of: Callable[[str], Path | None]):
        self._folder_of = folder_of
        self._memory: dict[str, Encoded] = {}

    def get(self, key: str, name: str, compute: Callable[[], Encoded]) -> Encoded:
        """`name` is what to call the picture in a message. TrainingFailed if its latents are not finite."""
        folder = self._folder_of(key)
        if folder is None:
            if key not in self._memory:
                self._memory[key] = _checked(compute(), name)
            return self._memory[key]
        path = folder / f"{key}.safetensors"
        if path.is_file():
            return Encoded(**safetensors.torch.load_file(path))
        encoded = _checked(compute(), name)
        tensors = {"latents": encoded.latents} | ({} if encoded.mask is None else {"mask": encoded.mask})
        write_cache(path, tensors)
        return encoded


def write_cache(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A cache's file, whole or not at all. TrainingFailed if the disk does not take it."""
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise TrainingFailed(
            f"The cache in {path.parent} can't be written ({error.strerror or error}).",
            "Free some space, or cache latents and text in memory (cache_latents, cache_text).",
        ) from error


def cache_key(picture_digest: str, vae_digest: str, *cut: object) -> str:
    return hashlib.sha256("/".join(map(str, (picture_digest, vae_digest, *cut))).encode("utf-8")).hexdigest()[:32]


def encoder_digest(vae: Any) -> str:
    """A digest of the weights of diffusers' `vae` that latents depend on."""
    parts = [part for part in (vae.encoder, vae.quant_conv) if part is not None]
    return module_digest(torch.nn.ModuleList(parts))


def module_digest(module: torch.nn.Module) -> str:
    """A digest of all weights, which tells one VAE or text encoder from another."""
    digest = hashlib.sha256()
    for name, weight in sorted(module.state_dict().items()):
        digest.update(name.encode("utf-8"))
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _checked(encoded: Encoded, name: str) -> Encoded:
    if not bool(torch.isfinite(encoded.latents).all()):
        raise TrainingFailed(
            f"The VAE makes no finite latents of {name}.",
            'Choose another VAE (for SDXL one mended for half precision), or mixed_precision = "no".',
            "nan",
        )
    return encoded

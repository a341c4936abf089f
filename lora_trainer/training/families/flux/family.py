"""The Flux.1 family (dev and schnell)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from lora_trainer.inspecting.facts import UNET_LORA_PREFIX, Facts
from lora_trainer.inspecting.identify import BaseModel
from lora_trainer.training.families.filling import Device
from lora_trainer.training.families.flux import load
from lora_trainer.training.families.flux.text import FluxTextEncoders
from lora_trainer.training.families.flux.tokenizer import read_tokenizer
from lora_trainer.training.families.flux.transformer import FluxTransformer
from lora_trainer.training.families.keys import layers_below, lora_key, text_encoder_keys
from lora_trainer.training.families.text import Conditioning

_BLOCKS = ("DoubleBlock", "SingleBlock")


@dataclass(frozen=True)
class Flux:
    """Implements `Family`. A base's parts are read from the files in its `parts`."""

    facts: Facts

    def load_text_encoders(self, base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> FluxTextEncoders:
        tokenizer = read_tokenizer(base.parts["t5_tokenizer"])
        return FluxTextEncoders(load.load_clip(base, dtype, device), load.load_t5(base, dtype, device), tokenizer)

    def load_vae(
        self, base: BaseModel, vae_file: Path | None, dtype: torch.dtype, device: Device = "cpu",
        decoder: bool = True,
    ) -> AutoencoderKL:  # fmt: skip
        """The autoencoder among the base's parts, whatever `vae_file` is."""
        return load.load_ae(base, dtype, device, decoder)

    def load_denoiser(
        self, base: BaseModel, dtype: torch.dtype, device: Device = "cpu", hold: str | None = None,
        swap_blocks: int = 0,
    ) -> FluxTransformer:  # fmt: skip
        return load.load_transformer(base, dtype, device, hold, swap_blocks)

    def denoise(
        self,
        model: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """The velocity (B, 16, h, w), noise less picture, of `noisy` at `timesteps` (B,), 0 to 1000; h and w even."""
        scales = torch.full((len(noisy),), guidance, dtype=torch.float32, device=noisy.device)
        context, pooled = conditioning.context, conditioning.pooled
        return model(noisy, timesteps, context, pooled, scales, conditioning.mask)

    def denoiser_targets(self, model: nn.Module, convolutions: bool = False) -> dict[str, str]:
        """The Linear layers of all blocks."""
        return {name: lora_key(UNET_LORA_PREFIX, name) for name in layers_below(model, _BLOCKS)}

    def text_encoder_targets(self, encoder: nn.Module, place: int = 0) -> dict[str, str]:
        """CLIP-L's, as those of every family's; none of T5's, which is number 1."""
        return {} if place else text_encoder_keys(encoder, self.facts.text_encoders[place].lora_prefix)

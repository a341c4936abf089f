"""The Stable Diffusion families (1.x, 2.x, XL): a U-Net conditioned on one or two CLIP text encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from lora_trainer.inspecting.facts import UNET_LORA_PREFIX, Facts
from lora_trainer.inspecting.identify import BaseModel
from lora_trainer.training import held
from lora_trainer.training.families import load
from lora_trainer.training.families.filling import Device
from lora_trainer.training.families.keys import layers_below, lora_key, text_encoder_keys
from lora_trainer.training.families.layout import unet_module_name
from lora_trainer.training.families.text import Conditioning, TextEncoders

# By the class names of diffusers' modules whose Linear layers and convolutions get a LoRA.
_ATTENTION = ("Transformer2DModel",)
_CONVOLUTIONAL = ("ResnetBlock2D", "Downsample2D", "Upsample2D")


@dataclass(frozen=True)
class StableDiffusion:
    """Implements `Family`."""

    facts: Facts

    def load_text_encoders(self, base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> TextEncoders:
        return load.load_text_encoders(base, dtype, device)

    def load_vae(
        self, base: BaseModel, vae_file: Path | None, dtype: torch.dtype, device: Device = "cpu",
        decoder: bool = True,
    ) -> AutoencoderKL:  # fmt: skip
        return load.load_vae(base, vae_file, dtype, device, decoder)

    def load_denoiser(
        self, base: BaseModel, dtype: torch.dtype, device: Device = "cpu", hold: str | None = None,
        swap_blocks: int = 0,
    ) -> UNet2DConditionModel:  # fmt: skip
        if not hold:
            return load.load_unet(base, dtype, device)
        # Rounded layer by layer on its way to the device, which then never holds the whole base unrounded.
        unet = load.load_unet(base, dtype)
        held.hold(unet, hold, torch.device(device))
        return unet

    def denoise(
        self,
        model: nn.Module,
        noisy: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        sizes: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """The U-Net's prediction (B, 4, H, W) for `noisy` of the same shape at `timesteps` (B,), 0 to 999."""
        added = None
        if conditioning.pooled is not None and sizes is not None:
            added = {"text_embeds": conditioning.pooled, "time_ids": sizes.to(noisy.device)}
        return model(noisy, timesteps, conditioning.context, added_cond_kwargs=added, return_dict=False)[0]

    def denoiser_targets(self, model: UNet2DConditionModel, convolutions: bool = False) -> dict[str, str]:
        """Attention's Linear layers and 1x1 convolutions; with `convolutions` those of resnets and samplers also."""
        parents = _ATTENTION + _CONVOLUTIONAL if convolutions else _ATTENTION
        modules = layers_below(model, parents)
        if self.facts.sgm_names:
            return {name: lora_key(UNET_LORA_PREFIX, unet_module_name(name, model.config)) for name in modules}
        return {name: lora_key(UNET_LORA_PREFIX, name) for name in modules}

    def text_encoder_targets(self, encoder: nn.Module, place: int = 0) -> dict[str, str]:
        """The attention's and the MLP's Linear layers of text encoder number `place`."""
        prefix = self.facts.text_encoders[place].lora_prefix
        return text_encoder_keys(encoder, prefix)

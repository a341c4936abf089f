"""A miniature Stable Diffusion: SD1.5's topology and key names at small widths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from lora_trainer.files import written_whole
from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, unet_names, vae_names

SIZE = 64
LATENT_SCALE = 0.18215
NORM_GROUPS = 8  # SD1.5's 32 groups would be one channel each at width 32, and cancel the time embedding
HEADS = 8
TEXT_PREFIX = "cond_stage_model.transformer."

METADATA = {
    "modelspec.architecture": "stable-diffusion-v1",
    "modelspec.title": "Sprite Diffusion, the demo's miniature base",
    "modelspec.resolution": f"{SIZE}x{SIZE}",
    "modelspec.prediction_type": "epsilon",
    "lora_trainer.norm_groups": str(NORM_GROUPS),
    "lora_trainer.unet_heads": str(HEADS),
    "lora_trainer.text_heads": str(HEADS),
    "lora_trainer.vae_scale": str(LATENT_SCALE),
}


@dataclass(frozen=True)
class Miniature:
    """The three models, fp32 on the CPU."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel


def build(seed: int) -> Miniature:
    """Untrained models; the same seed gives the same weights."""
    torch.manual_seed(seed)
    return Miniature(_vae(), _text_encoder(), _unet())


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=NORM_GROUPS,
        sample_size=SIZE,
        scaling_factor=LATENT_SCALE,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49_408,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=12,
            num_attention_heads=HEADS,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=49_406,
            eos_token_id=49_407,
            pad_token_id=49_407,
        )
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        cross_attention_dim=64,
        attention_head_dim=HEADS,  # diffusers' name for the number of heads
        norm_num_groups=NORM_GROUPS,
    )


def to_unit_latents(vae: AutoencoderKL, latents: Tensor) -> None:
    """Folds a shift and a scale per channel into the VAE, so that `latents * LATENT_SCALE` have mean 0, variance 1.

    `latents`: (B, 4, H, W), unscaled, as the VAE encodes them before. What it decodes stays the same.
    """
    mean = latents.mean((0, 2, 3))
    gain = 1 / (latents.std((0, 2, 3)) * LATENT_SCALE)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    with torch.no_grad():
        encode.weight[:4] *= gain[:, None, None, None]
        encode.bias[:4] = (encode.bias[:4] - mean) * gain
        encode.bias[4:] += 2 * gain.log()
        decode.bias += decode.weight[:, :, 0, 0] @ mean
        decode.weight /= gain[None, :, None, None]


def original_layout(models: Miniature) -> dict[str, Tensor]:
    """All weights in fp16 under the names of SD1.5's single-file checkpoint."""
    tensors = _renamed(models.unet.state_dict(), unet_names(models.unet.config), UNET_PREFIX)
    for name, tensor in _renamed(models.vae.state_dict(), vae_names(models.vae.config), VAE_PREFIX).items():
        is_projection = ".attn_1." in name and name.endswith("weight") and tensor.ndim == 2
        tensors[name] = tensor[:, :, None, None] if is_projection else tensor
    text = {name: name for name, _ in models.text_encoder.named_parameters()}
    tensors |= _renamed(models.text_encoder.state_dict(), text, TEXT_PREFIX)
    tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
    tensors[f"{TEXT_PREFIX}text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return tensors


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    return {prefix + names[name]: tensor.detach() for name, tensor in state.items() if name in names}


def save_base(models: Miniature, path: Path) -> None:
    """Writes one `.safetensors` file in SD1.5's layout, fp16; never a half file under `path`."""
    with written_whole(path) as temporary:
        save_file(original_layout(models), temporary, metadata=METADATA)

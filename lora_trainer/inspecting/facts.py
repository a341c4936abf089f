"""What is known of each family of base models beforehand, and can't be read from the shapes of a file's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EOS_ID = 49_407


@dataclass(frozen=True)
class TextEncoderFacts:
    """One CLIP text encoder: its `prefix` in an original file, its `folder` in a diffusers folder.

    `pooled`: its projected output at EOS is a conditioning of its own.
    `unused_layers`: layers at the end that the file holds and the family never runs.
    `lora_prefix` begins its modules' names in a LoRA file.
    """

    prefix: str
    folder: str
    lora_prefix: str
    heads: int
    open_clip: bool = False
    pad_token_id: int = EOS_ID
    pooled: bool = False
    unused_layers: int = 0

    @property
    def activation(self) -> str:
        return "gelu" if self.open_clip else "quick_gelu"


@dataclass(frozen=True)
class Facts:
    """`unet_heads`: attention heads per level, or one number for all; none for a transformer.

    Latents are what the VAE gives less `latent_shift`, times `latent_scale`.
    `sgm_names`: LoRA files name the U-Net's modules as the original layout does, not as diffusers does.
    `penultimate`: the context is the text encoders' last hidden state but one, without the final layer norm.
    """

    family: str
    title: str
    unet_heads: tuple[int, ...]
    latent_scale: float
    text_encoders: tuple[TextEncoderFacts, ...]
    sgm_names: bool = False
    penultimate: bool = False
    latent_shift: float = 0.0


NORM_GROUPS = 32
UNET_LORA_PREFIX = "lora_unet"

FAMILIES: Mapping[str, Facts] = {
    "sd15": Facts(
        family="sd15",
        title="Stable Diffusion 1.x",
        unet_heads=(8,),
        latent_scale=0.18215,
        text_encoders=(TextEncoderFacts("cond_stage_model.transformer.", "text_encoder", "lora_te", heads=12),),
    ),
    "sd2": Facts(
        family="sd2",
        title="Stable Diffusion 2.x",
        unet_heads=(5, 10, 20, 20),
        latent_scale=0.18215,
        text_encoders=(
            TextEncoderFacts(
                "cond_stage_model.model.",
                "text_encoder",
                "lora_te",
                heads=16,
                open_clip=True,
                pad_token_id=0,
                unused_layers=1,
            ),
        ),
    ),
    "sdxl": Facts(
        family="sdxl",
        title="Stable Diffusion XL",
        unet_heads=(5, 10, 20),
        latent_scale=0.13025,
        text_encoders=(
            TextEncoderFacts("conditioner.embedders.0.transformer.", "text_encoder", "lora_te1", heads=12),
            TextEncoderFacts(
                "conditioner.embedders.1.model.",
                "text_encoder_2",
                "lora_te2",
                heads=20,
                open_clip=True,
                pad_token_id=0,
                pooled=True,
            ),
        ),
        sgm_names=True,
        penultimate=True,
    ),
    "flux": Facts(
        family="flux",
        title="Flux.1",
        unet_heads=(),
        latent_scale=0.3611,
        text_encoders=(  # T5 is none of them, as no LoRA trains it
            TextEncoderFacts("text_encoders.clip_l.transformer.", "text_encoder", "lora_te1", heads=12),
        ),
        sgm_names=True,
        latent_shift=0.1159,
    ),
}

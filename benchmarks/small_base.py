"""Bases of SD1.5 and SDXL with their real topology at small widths, so that a training step takes a tenth of a second.

What can be small in sd-scripts too: its modules hold the widths as constants, which `peer_draws.py` sets to these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from lora_trainer.inspecting.facts import FAMILIES
from tests.make_base import Models, make_base, text_encoder

NORM_GROUPS = 8
SIZE_NUMBERS = 6 * 256  # the embeddings of the six sizes that SDXL is told

# `unet`: channels per level. `heads`: per level, or one number; SDXL's are 64 channels wide in sd-scripts, always.
# `text`: width, layers, heads and MLP width of each encoder.
SIZES: dict[str, dict[str, Any]] = {
    "sd15": {"unet": [32, 64, 128, 128], "heads": 8, "vae": 16, "text": [[64, 12, 4, 128]]},
    "sdxl": {"unet": [32, 64, 128], "heads": [1, 1, 2], "vae": 16, "text": [[32, 12, 2, 64], [48, 4, 3, 96]]},
}
for _sizes in SIZES.values():
    _sizes["norm_groups"] = NORM_GROUPS


def make_small_base(family: str, path: Path, symmetric: bool = True) -> Path:
    """Writes a base of `family` ("sd15" or "sdxl") with random weights, float32, always the same.

    `symmetric`: SDXL's text projection is its own transpose, for sd-scripts reads it turned.
    """
    sizes = SIZES[family]
    heads = sizes["heads"] if isinstance(sizes["heads"], list) else [sizes["heads"]]
    metadata = {
        "lora_trainer.norm_groups": str(NORM_GROUPS),
        "lora_trainer.unet_heads": ",".join(map(str, heads)),
        "lora_trainer.text_heads": ",".join(str(text[2]) for text in sizes["text"]),
    }
    with torch.device("meta"):
        models = Models(
            _unet(family),
            _vae(family),
            tuple(text_encoder(family, place, *SIZES[family]["text"][place]) for place in range(len(sizes["text"]))),
        )
    if family == "sdxl" and symmetric:
        width = sizes["text"][-1][0]
        matrix = torch.randn(width, width, generator=torch.Generator().manual_seed(0)) / (2 * width) ** 0.5
        models.text_encoders[-1].text_projection.weight = torch.nn.Parameter(matrix + matrix.t())
    return make_base(family, path, dtype=torch.float32, metadata=metadata, models=models)


def _unet(family: str) -> UNet2DConditionModel:
    sizes = SIZES[family]
    attended = [True, True, True, False] if family == "sd15" else [False, True, True]
    config: dict[str, Any] = {
        "block_out_channels": tuple(sizes["unet"]),
        "cross_attention_dim": sum(text[0] for text in sizes["text"]),
        "attention_head_dim": sizes["heads"],  # diffusers' name for the number of heads
        "norm_num_groups": NORM_GROUPS,
        "down_block_types": tuple("CrossAttnDownBlock2D" if with_text else "DownBlock2D" for with_text in attended),
        "up_block_types": tuple("CrossAttnUpBlock2D" if with_text else "UpBlock2D" for with_text in attended[::-1]),
    }
    if family == "sdxl":
        config |= {
            "use_linear_projection": True,
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": sizes["text"][-1][0] + SIZE_NUMBERS,
        }
    return UNet2DConditionModel(**config)


def _vae(family: str) -> AutoencoderKL:
    width = SIZES[family]["vae"]
    return AutoencoderKL(
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=NORM_GROUPS,
        scaling_factor=FAMILIES[family].latent_scale,
    )

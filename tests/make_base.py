"""Makes a base model with random weights: full size for benchmarks, small for tests.

    python tests/make_base.py sd15|sd2|sdxl OUT.safetensors [--dtype fp16] [--small]

The file has the original key layout and is written tensor by tensor, so that a 7 GB one needs no 7 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_trainer.inspecting.facts import FAMILIES
from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, open_clip_name, unet_names, vae_names

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

_SD_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
_XL_BLOCKS = {
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
}
_FULL_UNETS: dict[str, dict[str, Any]] = {
    "sd15": _SD_BLOCKS
    | {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": _SD_BLOCKS
    | {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": _XL_BLOCKS
    | {
        "block_out_channels": (320, 640, 1280),
        "cross_attention_dim": 2048,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "projection_class_embeddings_input_dim": 2816,
    },
}
_SMALL_UNETS: dict[str, dict[str, Any]] = {
    "sd15": _SD_BLOCKS
    | {
        "block_out_channels": (16, 32, 48, 48),
        "cross_attention_dim": 24,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "sd2": _SD_BLOCKS
    | {
        "block_out_channels": (16, 32, 48, 48),
        "cross_attention_dim": 24,
        "attention_head_dim": (2, 4, 6, 6),
        "use_linear_projection": True,
        "norm_num_groups": 8,
    },
    "sdxl": _XL_BLOCKS
    | {
        "block_out_channels": (16, 32, 48),
        "cross_attention_dim": 40,
        "attention_head_dim": (2, 4, 6),
        "transformer_layers_per_block": (1, 2, 3),
        "projection_class_embeddings_input_dim": 16 + 6 * 256,
        "norm_num_groups": 8,
    },
}
# (width, layers, heads, MLP) of each text encoder.
_FULL_TEXT = {"sd15": [(768, 12, 12, 3072)], "sd2": [(1024, 24, 16, 4096)]}
_FULL_TEXT["sdxl"] = [(768, 12, 12, 3072), (1280, 32, 20, 5120)]
_SMALL_TEXT = {"sd15": [(24, 3, 2, 48)], "sd2": [(24, 4, 2, 48)], "sdxl": [(24, 3, 2, 48), (16, 4, 4, 32)]}
_SMALL_METADATA = {
    "sd15": {"lora_trainer.unet_heads": "4", "lora_trainer.text_heads": "2"},
    "sd2": {"lora_trainer.unet_heads": "2,4,6,6", "lora_trainer.text_heads": "2"},
    "sdxl": {"lora_trainer.unet_heads": "2,4,6", "lora_trainer.text_heads": "2,4"},
}


@dataclass(frozen=True)
class Models:
    """The parts of a base model, as modules. A text encoder has the layers that its family never runs, too."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[CLIPTextModel, ...]


def build(family: str, small: bool) -> Models:
    """Modules as torch and the libraries initialise them; within `torch.device("meta")`, without any weights."""
    unets, texts = (_SMALL_UNETS, _SMALL_TEXT) if small else (_FULL_UNETS, _FULL_TEXT)
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16) if small else (128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8 if small else 32,
        scaling_factor=FAMILIES[family].latent_scale,
    )
    encoders = [text_encoder(family, place, *sizes) for place, sizes in enumerate(texts[family])]
    return Models(UNet2DConditionModel(**unets[family]), vae, tuple(encoders))


def text_encoder(family: str, place: int, width: int, layers: int, heads: int, mlp: int) -> CLIPTextModel:
    """With random weights; `width`, `layers`, `heads` and the width of its `mlp` as given."""
    facts = FAMILIES[family].text_encoders[place]
    config = CLIPTextConfig(
        vocab_size=49_408,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=facts.activation,
        projection_dim=width,
        bos_token_id=49_406,
        eos_token_id=49_407,
    )
    return (CLIPTextModelWithProjection if facts.pooled else CLIPTextModel)(config)


def original_tensors(models: Models, family: str) -> Iterator[tuple[str, tuple[Tensor, ...], str]]:
    """(original name, the parameters that it is made of, how): "same", "rows" (stacked), "turned" or "1x1"."""
    for name, original in unet_names(models.unet.config).items():
        yield UNET_PREFIX + original, (models.unet.get_parameter(name),), "same"
    for name, original in vae_names(models.vae.config).items():
        weight = models.vae.get_parameter(name)
        how = "1x1" if ".attn_1." in original and weight.ndim == 2 else "same"
        yield VAE_PREFIX + original, (weight,), how
    for facts, encoder in zip(FAMILIES[family].text_encoders, models.text_encoders, strict=True):
        parameters = dict(encoder.named_parameters())
        if not facts.open_clip:
            yield from ((facts.prefix + name, (weight,), "same") for name, weight in parameters.items())
            continue
        thirds: dict[str, list[tuple[int, Tensor]]] = {}
        for name, weight in parameters.items():
            original, third = open_clip_name(name)
            if third is None:
                yield facts.prefix + original, (weight,), "turned" if original == "text_projection" else "same"
            else:
                thirds.setdefault(original, []).append((third, weight))
        for original, parts in thirds.items():
            ordered = tuple(weight for _, weight in sorted(parts, key=lambda part: part[0]))
            yield facts.prefix + original, ordered, "rows"


def assembled(parameters: tuple[Tensor, ...], how: str) -> Tensor:
    tensor = torch.cat(parameters) if how == "rows" else parameters[0]
    return {"turned": tensor.t, "1x1": lambda: tensor[:, :, None, None]}.get(how, lambda: tensor)()


def _random(name: str, shape: torch.Size) -> Tensor:
    """Norms are the identity, biases zero, weights uniform with torch's bound for a Linear, embeddings normal."""
    if len(shape) < 2:
        is_norm = any(piece in name for piece in ("norm", "ln_", "in_layers.0", "out_layers.0", "out.0."))
        return torch.ones(shape) if is_norm and name.endswith("weight") else torch.zeros(shape)
    if "embedding" in name:
        return torch.randn(shape) * 0.02
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound)


def make_base(
    family: str,
    path: Path,
    small: bool = False,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
    models: Models | None = None,
    seed: int = 0,
) -> Path:
    """Writes a base of `family` to `path` in the original layout: the weights of `models`, else random ones."""
    torch.manual_seed(seed)
    if models is None:
        with torch.device("meta"):
            models = build(family, small)
    facts = {"lora_trainer.norm_groups": "8"} | _SMALL_METADATA[family] if small else {}
    entries = list(original_tensors(models, family))
    header: dict[str, Any] = {"__metadata__": {**facts, **(metadata or {})}}
    place = 0
    for name, parameters, how in entries:
        tensor = assembled(tuple(weight.to("meta") for weight in parameters), how)
        end = place + tensor.numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    content = json.dumps(header).encode("utf-8")
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for name, parameters, how in entries:
            known = [_random(name, weight.shape) if weight.is_meta else weight.detach() for weight in parameters]
            tensor = assembled(tuple(known), how).to(dtype).contiguous()
            file.write(tensor.view(-1).view(torch.uint8).numpy().data)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=_FULL_UNETS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp16")
    parser.add_argument("--small", action="store_true")
    chosen = parser.parse_args()
    make_base(chosen.family, chosen.out, chosen.small, DTYPES[chosen.dtype])
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()

"""diffusers' and transformers' configs of a base model's parts, read from the shapes of its tensors.

So one code path loads every width of a family. What shapes can't tell, attention heads and groups of the norms, comes
from the family's facts, unless the file's metadata says it: `lora_trainer.norm_groups`, `lora_trainer.unet_heads`,
`lora_trainer.text_heads`, `lora_trainer.vae_scale`. Names have no prefix; a KeyError names a tensor that is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lora_trainer.inspecting.facts import EOS_ID, NORM_GROUPS, Facts, TextEncoderFacts

Shapes = Mapping[str, tuple[int, ...]]
Metadata = Mapping[str, str]

T5_HEAD = 64
SIZE_WIDTH = 256  # of the sinusoidal embedding of each of the six numbers of size that SDXL is told
_DOWNSAMPLER = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight")


def unet_config(shapes: Shapes, facts: Facts, metadata: Metadata) -> dict[str, Any]:
    """Config of `UNet2DConditionModel` from the original layout."""
    downsamplers = sorted(int(match[1]) for match in map(_DOWNSAMPLER.fullmatch, shapes) if match)
    if not downsamplers:
        raise KeyError("input_blocks.3.0.op.weight")
    firsts = [1, *(index + 1 for index in downsamplers)]  # each level's first resnet and attention
    depths = [_children(f"input_blocks.{first}.1.transformer_blocks.", shapes) for first in firsts]
    attended = next((first for first, depth in zip(firsts, depths, strict=True) if depth), 1)
    attention = f"input_blocks.{attended}.1."
    config = {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": tuple(shapes[f"input_blocks.{first}.0.out_layers.3.weight"][0] for first in firsts),
        "layers_per_block": downsamplers[0] - 1,
        "down_block_types": tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)),
        "transformer_layers_per_block": tuple(max(depth, 1) for depth in depths),
        "cross_attention_dim": shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{attention}proj_in.weight"]) == 2,
        "attention_head_dim": _unet_heads(facts, metadata, len(firsts)),  # diffusers' name for the number of heads
        "norm_num_groups": _norm_groups(metadata),
    }
    if "label_emb.0.0.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SIZE_WIDTH,
            "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
        }
    return config


def _unet_heads(facts: Facts, metadata: Metadata, levels: int) -> tuple[int, ...]:
    heads = _numbers(metadata.get("lora_trainer.unet_heads", "")) or facts.unet_heads
    return heads * levels if len(heads) == 1 else heads


def vae_config(shapes: Shapes, facts: Facts, metadata: Metadata) -> dict[str, Any]:
    """Config of `AutoencoderKL` from the original or the diffusers layout."""
    diffusers = "encoder.down_blocks.0.resnets.0.conv1.weight" in shapes
    levels, resnets = ("encoder.down_blocks.", "resnets") if diffusers else ("encoder.down.", "block")
    count = max(_children(levels, shapes), 1)
    return {
        "block_out_channels": tuple(shapes[f"{levels}{level}.{resnets}.0.conv1.weight"][0] for level in range(count)),
        "layers_per_block": _children(f"{levels}0.{resnets}.", shapes),
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "norm_num_groups": _norm_groups(metadata),
        "scaling_factor": float(metadata.get("lora_trainer.vae_scale", facts.latent_scale)),
        "shift_factor": facts.latent_shift or None,
        "use_quant_conv": not facts.latent_shift,  # the families whose latents are shifted have left these out
        "use_post_quant_conv": not facts.latent_shift,
    }


def text_config(shapes: Shapes, facts: TextEncoderFacts, heads: int) -> dict[str, Any]:
    """Config of `CLIPTextModel` from CLIP's or open_clip's layout."""
    if facts.open_clip:
        start, layers = "", "transformer.resblocks."
        positions, mlp = shapes["positional_embedding"], shapes[f"{layers}0.mlp.c_fc.weight"]
    else:
        # The oldest merges leave out "text_model.".
        start = "text_model." if any(name.startswith("text_model.") for name in shapes) else ""
        layers = f"{start}encoder.layers."
        positions, mlp = shapes[f"{start}embeddings.position_embedding.weight"], shapes[f"{layers}0.mlp.fc1.weight"]
    tokens = shapes["token_embedding.weight" if facts.open_clip else f"{start}embeddings.token_embedding.weight"]
    return {
        "vocab_size": tokens[0],
        "hidden_size": tokens[1],
        "intermediate_size": mlp[0],
        "num_hidden_layers": _children(layers, shapes) - facts.unused_layers,
        "num_attention_heads": heads,
        "max_position_embeddings": positions[0],
        "hidden_act": facts.activation,
        "projection_dim": shapes.get("text_projection", tokens)[1],
        "pad_token_id": facts.pad_token_id,
        "bos_token_id": EOS_ID - 1,
        "eos_token_id": EOS_ID,
    }


def t5_config(shapes: Shapes) -> dict[str, Any]:
    """Config of `T5EncoderModel` from the layout of T5 v1.1's encoder, whose heads are 64 wide."""
    first = "encoder.block.0.layer."
    tokens = shapes["shared.weight" if "shared.weight" in shapes else "encoder.embed_tokens.weight"]
    return {
        "vocab_size": tokens[0],
        "d_model": tokens[1],
        "d_kv": T5_HEAD,
        "num_heads": shapes[f"{first}0.SelfAttention.q.weight"][0] // T5_HEAD,
        "d_ff": shapes[f"{first}1.DenseReluDense.wi_0.weight"][0],
        "num_layers": _children("encoder.block.", shapes),
        "relative_attention_num_buckets": shapes[f"{first}0.SelfAttention.relative_attention_bias.weight"][0],
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "use_cache": False,
    }


def text_heads(facts: TextEncoderFacts, place: int, metadata: Metadata) -> int:
    """Attention heads of the family's text encoder number `place`, counted from 0."""
    said = _numbers(metadata.get("lora_trainer.text_heads", ""))
    return said[min(place, len(said) - 1)] if said else facts.heads


def _norm_groups(metadata: Metadata) -> int:
    return int(metadata.get("lora_trainer.norm_groups", NORM_GROUPS))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number.strip())


def _children(prefix: str, shapes: Shapes) -> int:
    """How many different parts come next after `prefix` in the names."""
    return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})

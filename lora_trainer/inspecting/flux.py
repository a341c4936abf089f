"""What the tensors of a Flux file are: the transformer, and the parts beside it, told by names and shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping

from lora_trainer.config.networks import FLUX_BLOCKS
from lora_trainer.inspecting.header import TensorInfo

Tensors = Mapping[str, TensorInfo]

# What stands before the names of a part, in a file of its own or in one with everything; each with a name it must have.
PREFIXES: Mapping[str, tuple[str, ...]] = {
    "transformer": ("model.diffusion_model.", ""),
    "clip_l": ("text_encoders.clip_l.transformer.", ""),
    "t5xxl": ("text_encoders.t5xxl.transformer.", ""),
    "ae": ("vae.", "first_stage_model.", ""),
}
_MARKS = {
    "transformer": "double_blocks.0.img_attn.qkv.weight",
    "clip_l": "text_model.embeddings.token_embedding.weight",
    "t5xxl": "encoder.block.0.layer.0.SelfAttention.q.weight",
    "ae": "decoder.conv_in.weight",
}
NF4_STATE = ".quant_state.bitsandbytes__nf4"  # ends the name of what bitsandbytes tells of a weight: JSON in bytes
NF4_BESIDE = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", NF4_STATE)
LATENT_CHANNELS, PATCH = 16, 2  # a token of the transformer is a square of latents, with all their channels
DEPTH = tuple(FLUX_BLOCKS.values())  # double and single blocks, as published
_READABLE = ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
SCALES = (".scale_weight", ".weight_scale")  # what all numbers of an fp8 weight beside it are to be multiplied by


def tensors_of(part: str, tensors: Tensors) -> dict[str, TensorInfo]:
    """One of PREFIXES in a file: its tensors by their names in Flux's own code; none where the file does not have it.

    Each `TensorInfo.name` stays the name that the file has.
    """
    for prefix in PREFIXES[part]:
        if prefix + _MARKS[part] in tensors:
            return {name[len(prefix) :]: info for name, info in tensors.items() if name.startswith(prefix)}
    return {}


def is_transformer(tensors: Tensors) -> bool:
    return any(prefix + _MARKS["transformer"] in tensors for prefix in PREFIXES["transformer"])


def is_clip_l(tensors: Tensors) -> bool:
    """Whether it holds CLIP's smaller text encoder; the larger ones are deeper and wider."""
    found = tensors_of("clip_l", tensors)
    words = shape_of(_MARKS["clip_l"], found)
    return len(words) == 2 and words[1] <= 768 and _count(found, "text_model.encoder.layers.") <= 12


def is_t5xxl(tensors: Tensors) -> bool:
    """Whether it holds the whole encoder of a T5 v1.1: gated layers, which all share the positions of the first."""
    found = tensors_of("t5xxl", tensors)
    gated = "encoder.block.0.layer.1.DenseReluDense.wi_1.weight" in found
    whole = "encoder.final_layer_norm.weight" in found and len(shape_of(_MARKS["t5xxl"], found)) == 2
    return gated and whole and "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" not in found


def is_ae(tensors: Tensors) -> bool:
    """Whether it holds an autoencoder of 16 channels for pictures; SD3's has the same shapes as Flux's."""
    found = tensors_of("ae", tensors)
    return bool(found) and found[_MARKS["ae"]].shape[1:] == (LATENT_CHANNELS, 3, 3)


IS_PART = {"clip_l": is_clip_l, "t5xxl": is_t5xxl, "ae": is_ae}


def is_readable(tensors: Tensors) -> bool:
    """Whether the weights, of the transformer or a part, are numbers of a known type, or bitsandbytes' NF4."""
    if any(math.prod(info.shape) != 1 for name, info in tensors.items() if name.endswith(SCALES)):
        return False
    weights = {name: info.dtype for name, info in tensors.items() if name.endswith(".weight")}
    return all(dtype in _READABLE or f"{name}{NF4_STATE}" in tensors for name, dtype in weights.items())


def shape_of(name: str, tensors: Tensors) -> tuple[int, ...]:
    """The shape of a weight, also where bitsandbytes has packed it; () where it is not there."""
    info, state = tensors.get(name), tensors.get(f"{name}{NF4_STATE}")
    if info is None or state is None:
        return info.shape if info else ()
    with state.file.open("rb") as stream:
        stream.seek(state.start)
        content = stream.read(state.end - state.start)
    try:
        return tuple(map(int, json.loads(content)["shape"]))
    except (ValueError, TypeError, KeyError):
        return info.shape


def variant(transformer: Tensors) -> str:
    """dev is told how strictly to follow the prompt; schnell has no input for it."""
    return "dev" if any(name.startswith("guidance_in.") for name in transformer) else "schnell"


def depth(transformer: Collection[str]) -> tuple[int, int]:
    """How many double and single blocks there are, by the names of the tensors."""
    return _count(transformer, "double_blocks."), _count(transformer, "single_blocks.")


def inputs(transformer: Tensors) -> dict[str, int]:
    """How wide the transformer takes what each part gives: CLIP-L's output, T5's, and the latents of one token."""
    names = {"clip_l": "vector_in.in_layer.weight", "t5xxl": "txt_in.weight", "ae": "img_in.weight"}
    return {part: shape[1] for part, name in names.items() if len(shape := shape_of(name, transformer)) == 2}


def width(part: str, tensors: Tensors) -> int:
    """How wide a part's output is, as `inputs` counts it."""
    found = tensors_of(part, tensors)
    if part == "ae":
        return found[_MARKS["ae"]].shape[1] * PATCH**2
    return shape_of(_MARKS[part], found)[-1]


def _count(names: Collection[str], start: str) -> int:
    return len({name[len(start) :].partition(".")[0] for name in names if name.startswith(start)})

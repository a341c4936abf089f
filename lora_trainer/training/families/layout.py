"""Names of the parts of Stable Diffusion in its two layouts.

*diffusers* names are those of `UNet2DConditionModel`, `AutoencoderKL` and `CLIPTextModel`; *original* names are those
of the single-file checkpoints (CompVis for SD1, Stability's SGM for SDXL). Everything is computed from the block
structure, so a miniature model maps by the same rules as a full one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."

_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_END = re.compile("(?:" + "|".join(map(re.escape, _UNET_ENDS)) + r")(?=\.|$)")
_UNET_PART = re.compile(r"(?<=resnets\.\d\.)(?:" + "|".join(_UNET_PARTS) + r")(?=\.|$)")
_UNET_BLOCK = re.compile(r"(?:down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(?=\.|$)")

_VAE_PARTS = {
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut",
}
_VAE_PART = re.compile(r"(?<=\.)(?:" + "|".join(map(re.escape, _VAE_PARTS)) + r")(?=\.|$)")
_VAE_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)|(?:down|up)samplers\.0)(?=\.|$)")

_OPEN_CLIP_ENDS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}
_OPEN_CLIP_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_CLIP_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")


def unet_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Each diffusers parameter name of the U-Net with this config -> its original name, without `UNET_PREFIX`."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    return {name: unet_module_name(name, config) for name, _ in unet.named_parameters()}


def unet_module_name(name: str, config: Mapping[str, Any]) -> str:
    """The original name of a U-Net module or parameter given by its diffusers `name`.

    `config`: the UNet2DConditionModel config, of which `layers_per_block` and `up_block_types` are read.
    A name without an original counterpart (a whole block, say) raises ValueError.
    """
    name = _UNET_PART.sub(lambda part: _UNET_PARTS[part[0]], name).replace("downsamplers.0.conv", "downsamplers.0.op")
    if end := _UNET_END.match(name):
        return _UNET_ENDS[end[0]] + name[end.end() :]
    if block := _UNET_BLOCK.match(name):
        level, kind, layer = int(block[1]), block[2], int(block[3])
        place = _up_place if name.startswith("up") else _down_place
        return place(level, kind, layer, config) + name[block.end() :]
    raise ValueError(f"{name!r} has no name in the original U-Net layout")


def _down_place(level: int, kind: str, layer: int, config: Mapping[str, Any]) -> str:
    """A level is `layers_per_block` resnets with their attentions, then the downsampler; conv_in stands before all."""
    layers = config["layers_per_block"]
    offset = layers if kind == "downsamplers" else layer
    return f"input_blocks.{1 + level * (layers + 1) + offset}.{int(kind == 'attentions')}"


def _up_place(level: int, kind: str, layer: int, config: Mapping[str, Any]) -> str:
    """A level is one resnet more than on the way down; the upsampler ends the last of them, after any attention."""
    layers = config["layers_per_block"]
    if kind == "upsamplers":
        behind = 2 if "CrossAttn" in config["up_block_types"][level] else 1
        return f"output_blocks.{level * (layers + 1) + layers}.{behind}"
    return f"output_blocks.{level * (layers + 1) + layer}.{int(kind == 'attentions')}"


def vae_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Each diffusers parameter name of the VAE with this config -> its original name, without `VAE_PREFIX`.

    The attention's four projections are Linear (out, in) in diffusers and 1x1 convolutions (out, in, 1, 1) in the
    original layout; everything else has one shape in both.
    """
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(config)
    levels = len(config["block_out_channels"])
    return {name: _vae_name(name, levels) for name, _ in vae.named_parameters()}


def _vae_name(name: str, levels: int) -> str:
    def place(block: re.Match[str]) -> str:
        way, level, resnet = block[1], int(block[2]), block[3]
        # The original counts the decoder's levels from the picture's side, diffusers from the latent's.
        level = levels - 1 - level if way == "up" else level
        return f"{way}.{level}." + (f"block.{resnet}" if resnet else f"{way}sample")

    return _VAE_PART.sub(lambda part: _VAE_PARTS[part[0]], _VAE_BLOCK.sub(place, name))


def open_clip_name(name: str) -> tuple[str, int | None]:
    """The open_clip name of a `CLIPTextModelWithProjection` parameter, and which third of that tensor it is.

    open_clip keeps query, key and value in one `in_proj` tensor, stacked along axis 0: for these the second value is
    0, 1 or 2, otherwise None. `text_projection` is the transpose of diffusers' `text_projection.weight`.
    """
    if name in _OPEN_CLIP_ENDS:
        return _OPEN_CLIP_ENDS[name], None
    layer = _CLIP_LAYER.fullmatch(name)
    if not layer:
        raise ValueError(f"{name!r} has no name in the open_clip layout")
    index, part, kind = layer.groups()
    block = f"transformer.resblocks.{index}"
    if part in _OPEN_CLIP_PARTS:
        return f"{block}.{_OPEN_CLIP_PARTS[part]}.{kind}", None
    return f"{block}.attn.in_proj_{kind}", ("q_proj", "k_proj", "v_proj").index(part.removeprefix("self_attn."))

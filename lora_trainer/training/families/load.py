"""Loads the parts of a Stable Diffusion base model, and what other families have in the same layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_trainer.inspecting.facts import EOS_ID, FAMILIES, TextEncoderFacts
from lora_trainer.inspecting.header import bad_model, is_folder, read_header
from lora_trainer.inspecting.identify import BaseModel, folder_tensors, read_json
from lora_trainer.training.families import configs
from lora_trainer.training.families.filling import (
    Device,
    Tensors,
    below,
    check_all_there,
    empty,
    filled,
    parameter_names,
    read_config,
    said_of,
    shapes_of,
)
from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, open_clip_name, unet_names, vae_names
from lora_trainer.training.families.text import TextEncoders

# VAEs saved by diffusers before 0.18 name the attention's projections so.
_OLD_VAE_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def load_unet(base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> UNet2DConditionModel:
    """The U-Net in `dtype` on `device`. BadInput if a tensor is missing or has another shape."""
    if base.layout == "diffusers":
        config = read_json(base.path / "unet" / "config.json")
        tensors: Tensors = folder_tensors(base.path, "unet")
    else:
        tensors = below(UNET_PREFIX, read_header(base.path).tensors)
        config = read_config(base.path, configs.unet_config, shapes_of(tensors), FAMILIES[base.family], base.metadata)
    unet = empty(base.path, UNet2DConditionModel.from_config, config)
    names = unet_names(config)
    if base.layout == "diffusers":
        names = {name: name for name in names}
    return filled(unet, base.path, tensors, names, dtype, device)


def load_vae(
    base: BaseModel, vae_file: Path | None = None, dtype: torch.dtype = torch.float32, device: Device = "cpu",
    decoder: bool = True,
) -> AutoencoderKL:  # fmt: skip
    """The base's VAE, or the one in `vae_file`: an original or a diffusers file, or a diffusers VAE folder.

    Without `decoder` it only encodes: `vae.decoder` and `vae.post_quant_conv` are None. Latents are to be multiplied by
    `vae.config.scaling_factor`. BadInput if there is none, or a tensor is missing or misshapen.
    """
    if vae_file is None:
        folder = base.path / "vae" if base.layout == "diffusers" else None
        return _load_vae(folder or base.path, base, VAE_PREFIX, dtype, device, decoder)
    with said_of("vae"):
        return _load_vae(vae_file, base, "", dtype, device, decoder)


def _load_vae(
    path: Path, base: BaseModel, prefix: str, dtype: torch.dtype, device: Device, decoder: bool
) -> AutoencoderKL:
    """`prefix`: what the VAE's names must begin with in a file; "" takes names with and without `VAE_PREFIX`."""
    if is_folder(path):
        config, tensors = read_json(path / "config.json"), folder_tensors(path.parent, path.name)
    else:
        found = read_header(path).tensors
        tensors = below(VAE_PREFIX, found) or below(prefix, found)
        if not tensors:
            raise bad_model(path, "has no VAE", "Choose a VAE file in the setting vae.")
        config = vae_config(path, tensors, base)
    return vae_of(path, tensors, config, dtype, device, decoder)


def vae_config(path: Path, tensors: Tensors, base: BaseModel) -> dict[str, Any]:
    return read_config(path, configs.vae_config, shapes_of(tensors), FAMILIES[base.family], base.metadata)


def vae_of(
    path: Path, tensors: Tensors, config: dict[str, Any], dtype: torch.dtype, device: Device, decoder: bool
) -> AutoencoderKL:
    """The VAE with `config` in the `tensors` of the file `path`."""
    vae = empty(path, AutoencoderKL.from_config, config)
    names = vae_names(config)
    if any(name.startswith("decoder.up_blocks.") for name in tensors):
        names = {name: _old_vae_name(name, tensors) for name in names}
    if not decoder:
        check_all_there(path, tensors, names)
        vae.decoder = vae.post_quant_conv = None
        names = {name: original for name, original in names.items() if not name.startswith(("decoder.", "post_quant"))}
    return filled(vae, path, tensors, names, dtype, device)


def _old_vae_name(name: str, tensors: Tensors) -> str:
    if name in tensors:
        return name
    for ours, old in _OLD_VAE_NAMES.items():
        name = name.replace(ours, old)
    return name


def load_text_encoders(base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> TextEncoders:
    """The family's one or two CLIP text encoders. BadInput if a tensor is missing or has another shape."""
    facts = FAMILIES[base.family]
    tensors = read_header(base.path).tensors if base.layout == "original" else {}
    encoders = []
    for place, encoder in enumerate(facts.text_encoders):
        if base.layout == "diffusers":
            loaded = _folder_text_encoder(base, encoder, dtype, device)
        else:
            heads = configs.text_heads(encoder, place, base.metadata)
            part = below(encoder.prefix, tensors)
            loaded = original_text_encoder(base.path, encoder, heads, part, dtype, device)
        encoders.append(loaded)
    return TextEncoders(tuple(encoders), facts)


def _folder_text_encoder(
    base: BaseModel, encoder: TextEncoderFacts, dtype: torch.dtype, device: Device
) -> CLIPTextModel:
    config = CLIPTextConfig.from_dict(read_json(base.path / encoder.folder / "config.json"))
    config.eos_token_id = EOS_ID  # old folders say 2, for which transformers pools elsewhere
    tensors = folder_tensors(base.path, encoder.folder)
    model = _empty_text_encoder(base.path, config, encoder.pooled)
    return filled(model, base.path, tensors, {name: name for name in parameter_names(model)}, dtype, device)


def original_text_encoder(
    path: Path, encoder: TextEncoderFacts, heads: int, tensors: Tensors, dtype: torch.dtype, device: Device
) -> CLIPTextModel:
    """The text encoder in `tensors` of the file `path`, in CLIP's or open_clip's layout."""
    config = CLIPTextConfig(**read_config(path, configs.text_config, shapes_of(tensors), encoder, heads))
    model = _empty_text_encoder(path, config, encoder.pooled)
    if encoder.open_clip:
        names = {name: open_clip_name(name)[0] for name in parameter_names(model)}
        return filled(model, path, tensors, names, dtype, device, _open_clip_piece)
    # The oldest merges leave out the name's first part.
    start = "" if any(name.startswith("text_model.") for name in tensors) else "text_model."
    names = {name: name.removeprefix(start) for name in parameter_names(model)}
    return filled(model, path, tensors, names, dtype, device)


def _empty_text_encoder(path: Path, config: CLIPTextConfig, pooled: bool) -> CLIPTextModel:
    model = empty(path, CLIPTextModelWithProjection if pooled else CLIPTextModel, config)
    # A buffer that no file holds, so that it must not stay without memory.
    model.text_model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    return model


def _open_clip_piece(name: str, tensor: Tensor) -> Tensor:
    original, third = open_clip_name(name)
    if original == "text_projection":
        return tensor.t()
    return tensor if third is None else tensor.chunk(3)[third]

"""Loads a base model's parts: built without memory, then filled tensor by tensor in their final precision.

The parts come frozen (no gradients) and in eval mode. Peak memory is the part itself and the one tensor at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lora_trainer.config.problems import BadInput
from lora_trainer.inspecting.facts import EOS_ID, FAMILIES, TextEncoderFacts
from lora_trainer.inspecting.header import TensorInfo, bad_model, is_folder, read_header
from lora_trainer.inspecting.identify import BaseModel, folder_tensors, read_json
from lora_trainer.training.families import configs
from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, open_clip_name, unet_names, vae_names
from lora_trainer.training.families.tensors import read_tensors
from lora_trainer.training.families.text import TextEncoders

Device = torch.device | str
Tensors = Mapping[str, TensorInfo]
Piece = Callable[[str, Tensor], Tensor]

_WHOLE_MODEL = "Choose an undamaged, whole checkpoint."
# VAEs saved by diffusers before 0.18 name the attention's projections so.
_OLD_VAE_NAMES = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def load_unet(base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> UNet2DConditionModel:
    """The U-Net in `dtype` on `device`. BadInput if a tensor is missing or has another shape."""
    if base.layout == "diffusers":
        config = read_json(base.path / "unet" / "config.json")
        tensors: Tensors = folder_tensors(base.path, "unet")
    else:
        tensors = _below(UNET_PREFIX, read_header(base.path).tensors)
        config = _read_config(base.path, configs.unet_config, tensors, FAMILIES[base.family], base.metadata)
    unet = _empty(base.path, UNet2DConditionModel.from_config, config)
    names = unet_names(config)
    if base.layout == "diffusers":
        names = {name: name for name in names}
    return _filled(unet, base.path, tensors, names, dtype, device)


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
    try:
        return _load_vae(vae_file, base, "", dtype, device, decoder)
    except BadInput as error:
        raise BadInput(replace(problem, setting="vae") for problem in error.problems) from None


def _load_vae(
    path: Path, base: BaseModel, prefix: str, dtype: torch.dtype, device: Device, decoder: bool
) -> AutoencoderKL:
    """`prefix`: what the VAE's names must begin with in a file; "" takes names with and without `VAE_PREFIX`."""
    if is_folder(path):
        config, tensors = read_json(path / "config.json"), folder_tensors(path.parent, path.name)
    else:
        found = read_header(path).tensors
        tensors = _below(VAE_PREFIX, found) or _below(prefix, found)
        if not tensors:
            raise bad_model(path, "has no VAE", "Choose a VAE file in the setting vae.")
        config = _read_config(path, configs.vae_config, tensors, FAMILIES[base.family], base.metadata)
    vae = _empty(path, AutoencoderKL.from_config, config)
    names = vae_names(config)
    if any(name.startswith("decoder.up_blocks.") for name in tensors):
        names = {name: _old_vae_name(name, tensors) for name in names}
    if not decoder:
        _check_all_there(path, tensors, names)
        vae.decoder = vae.post_quant_conv = None
        names = {name: original for name, original in names.items() if not name.startswith(("decoder.", "post_quant"))}
    return _filled(vae, path, tensors, names, dtype, device)


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
            part = _below(encoder.prefix, tensors)
            loaded = _original_text_encoder(base.path, encoder, heads, part, dtype, device)
        encoders.append(loaded)
    return TextEncoders(tuple(encoders), facts)


def _folder_text_encoder(
    base: BaseModel, encoder: TextEncoderFacts, dtype: torch.dtype, device: Device
) -> CLIPTextModel:
    config = CLIPTextConfig.from_dict(read_json(base.path / encoder.folder / "config.json"))
    config.eos_token_id = EOS_ID  # old folders say 2, for which transformers pools elsewhere
    tensors = folder_tensors(base.path, encoder.folder)
    model = _empty_text_encoder(base.path, config, encoder.pooled)
    return _filled(model, base.path, tensors, {name: name for name in _parameter_names(model)}, dtype, device)


def _original_text_encoder(
    path: Path, encoder: TextEncoderFacts, heads: int, tensors: Tensors, dtype: torch.dtype, device: Device
) -> CLIPTextModel:
    config = CLIPTextConfig(**_read_config(path, configs.text_config, tensors, encoder, heads))
    model = _empty_text_encoder(path, config, encoder.pooled)
    if encoder.open_clip:
        names = {name: open_clip_name(name)[0] for name in _parameter_names(model)}
        return _filled(model, path, tensors, names, dtype, device, _open_clip_piece)
    # The oldest merges leave out the name's first part.
    start = "" if any(name.startswith("text_model.") for name in tensors) else "text_model."
    names = {name: name.removeprefix(start) for name in _parameter_names(model)}
    return _filled(model, path, tensors, names, dtype, device)


def _empty_text_encoder(path: Path, config: CLIPTextConfig, pooled: bool) -> CLIPTextModel:
    model = _empty(path, CLIPTextModelWithProjection if pooled else CLIPTextModel, config)
    # A buffer that no file holds, so that it must not stay without memory.
    model.text_model.embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    return model


def _open_clip_piece(name: str, tensor: Tensor) -> Tensor:
    original, third = open_clip_name(name)
    if original == "text_projection":
        return tensor.t()
    return tensor if third is None else tensor.chunk(3)[third]


def _below(prefix: str, tensors: Tensors) -> dict[str, TensorInfo]:
    return {name.removeprefix(prefix): info for name, info in tensors.items() if name.startswith(prefix)}


def _parameter_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def _read_config(path: Path, read: Callable[..., dict[str, Any]], tensors: Tensors, *facts: object) -> dict[str, Any]:
    """A config read from tensors' shapes; BadInput names the tensor that it needs and that is missing."""
    try:
        return read({name: info.shape for name, info in tensors.items()}, *facts)
    except KeyError as missing:
        raise bad_model(path, f"lacks the tensor {missing.args[0]}", _WHOLE_MODEL) from None
    except (IndexError, ValueError) as error:
        raise bad_model(path, f"has tensors or metadata that fit no model ({error})", _WHOLE_MODEL) from None


def _empty(path: Path, build: Callable[[Any], Any], config: Any) -> Any:
    """The module without memory for its weights. BadInput if the config fits together in no module."""
    try:
        with torch.device("meta"):
            return build(config)
    except ValueError as error:
        raise bad_model(path, f"has tensors or metadata that fit no model ({error})", _WHOLE_MODEL) from None


def _filled(
    model: Any,
    path: Path,
    tensors: Tensors,
    names: Mapping[str, str],
    dtype: torch.dtype,
    device: Device,
    piece: Piece = lambda _, tensor: tensor,
) -> Any:
    """Gives each parameter its tensor: `names` says which, `piece(parameter, tensor)` takes its part of that."""
    _check_all_there(path, tensors, names)
    users: dict[str, list[str]] = {}
    for name, original in names.items():
        users.setdefault(original, []).append(name)
    for original, tensor in read_tensors({original: tensors[original] for original in users}):
        for name in users[original]:
            part = _fitted(piece(name, tensor), model.get_parameter(name).shape, path, original)
            _set_parameter(model, name, _own(part, dtype, device))
    return model.to(device).eval()  # the few buffers


def _check_all_there(path: Path, tensors: Tensors, names: Mapping[str, str]) -> None:
    missing = sorted({original for original in names.values() if original not in tensors})
    if missing:
        more = f" and {len(missing) - 1} more tensors" if missing[1:] else ""
        raise bad_model(path, f"lacks the tensor {missing[0]}{more}", _WHOLE_MODEL)


def _fitted(tensor: Tensor, shape: torch.Size, path: Path, original: str) -> Tensor:
    """The tensor in `shape`, where a 1x1 convolution and a Linear may stand for each other; else BadInput."""
    ones = (1,) * abs(len(shape) - tensor.ndim)
    if tensor.shape == shape or tensor.shape + ones == shape or tensor.shape == shape + ones:
        return tensor.reshape(shape)
    found, wanted = ("x".join(map(str, sizes)) for sizes in (tensor.shape, shape))
    raise bad_model(path, f"has {original} in the shape {found} instead of {wanted}", _WHOLE_MODEL)


def _own(tensor: Tensor, dtype: torch.dtype, device: Device) -> Tensor:
    """A copy in memory of its own, a convolution's weights with channels last, as they are computed with."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(device, dtype, copy=True, memory_format=layout)


def _set_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))

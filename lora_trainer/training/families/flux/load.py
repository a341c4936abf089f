"""Loads the parts of a Flux model from their files, or all from one; a weight held in 8 or 4 bits keeps its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from lora_trainer.inspecting.facts import FAMILIES
from lora_trainer.inspecting.flux import shape_of, tensors_of
from lora_trainer.inspecting.header import bad_model, read_header
from lora_trainer.inspecting.identify import BaseModel
from lora_trainer.training.families import configs
from lora_trainer.training.families.filling import (
    Device,
    Tensors,
    empty,
    parameter_names,
    read_config,
    said_of,
    set_parameter,
)
from lora_trainer.training.families.flux.transformer import FluxConfig, FluxTransformer
from lora_trainer.training.families.flux.weights import computed, fill, kept, linear_of
from lora_trainer.training.families.load import original_text_encoder, vae_config, vae_of
from lora_trainer.training.held import Weight, put_into
from lora_trainer.training.swapping import waiting

CLIP_HEAD = 64


def load_transformer(
    base: BaseModel, dtype: torch.dtype, device: Device = "cpu", hold: str | None = None, swap_blocks: int = 0
) -> FluxTransformer:
    """The transformer on `device`, to be computed with in `dtype`; BadInput if a tensor is missing or misshapen.

    The blocks' Linear layers are held: as `hold` says ("fp8", "nf4" or None), each rounded on its way unless the file
    has it so already, and in host memory where they lie in one of the blocks that `swap_blocks` has wait there.
    """
    tensors = tensors_of("transformer", read_header(base.path).tensors)
    config = read_config(base.path, FluxConfig.of, {name: shape_of(name, tensors) for name in tensors})
    model: FluxTransformer = empty(base.path, FluxTransformer, config)
    waits = waiting(config.double_blocks, config.single_blocks, swap_blocks)

    def put(name: str, weight: Weight) -> None:
        layer, block = linear_of(model, name), ".".join(name.split(".")[:2])
        if layer is None or "_blocks." not in block:
            set_parameter(model, name, computed(weight, dtype, device))
        else:
            home = "cpu" if block in waits else device
            put_into(layer, kept(weight, hold, dtype, device if hold else home).to(home), dtype)

    fill(model, base.path, tensors, {name: name for name in parameter_names(model)}, put)
    return model.eval()


def load_clip(base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> CLIPTextModel:
    """CLIP-L. BadInput, of the setting clip_l, if a tensor is missing or has another shape."""
    path, facts = base.parts["clip_l"], FAMILIES["flux"].text_encoders[0]
    with said_of("clip_l"):
        tensors = _part("clip_l", path)
        heads = tensors["text_model.embeddings.token_embedding.weight"].shape[1] // CLIP_HEAD
        return original_text_encoder(path, facts, heads, tensors, dtype, device)


def load_t5(base: BaseModel, dtype: torch.dtype, device: Device = "cpu") -> T5EncoderModel:
    """T5's encoder; Linear layers that its file has in 8 or 4 bits are held so.

    In half precision the layers whose outputs exceed it are computed in float32, as transformers has it. BadInput, of
    the setting t5xxl, if a tensor is missing or has another shape.
    """
    path = base.parts["t5xxl"]
    with said_of("t5xxl"):
        tensors = _part("t5xxl", path)
        shapes = {name: shape_of(name, tensors) for name in tensors}
        model: T5EncoderModel = empty(path, _empty_t5, read_config(path, configs.t5_config, shapes))
        names = {name: name for name in parameter_names(model)}
        if "shared.weight" not in tensors:
            names["shared.weight"] = "encoder.embed_tokens.weight"

        def put(name: str, weight: Weight) -> None:
            exceeding = dtype == torch.float16 and name.endswith(".wo.weight")
            precision, layer = torch.float32 if exceeding else dtype, linear_of(model, name)
            if layer is None or not weight.kind:
                set_parameter(model, name, computed(weight, precision, device))
            else:
                put_into(layer, kept(weight, weight.kind, precision, device), precision)

        fill(model, path, tensors, names, put)
    return model.eval()


def load_ae(base: BaseModel, dtype: torch.dtype, device: Device = "cpu", decoder: bool = True) -> AutoencoderKL:
    """The autoencoder, as `load_vae` loads one. BadInput, of the setting ae, if a tensor is missing or misshapen."""
    path = base.parts["ae"]
    with said_of("ae"):
        tensors = _part("ae", path)
        return vae_of(path, tensors, vae_config(path, tensors, base), dtype, device, decoder)


def _empty_t5(config: Mapping[str, object]) -> T5EncoderModel:
    return T5EncoderModel(T5Config(**config))


def _part(part: str, path: Path) -> Tensors:
    tensors = tensors_of(part, read_header(path).tensors)
    if not tensors:
        raise bad_model(path, f"has no {part} of a Flux model", "Choose another file.")
    return tensors

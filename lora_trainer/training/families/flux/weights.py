"""Weights as a file has them, be it in 8 or in 4 bits, and a module filled with them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_trainer.inspecting.flux import NF4_BESIDE, NF4_STATE, SCALES, shape_of
from lora_trainer.inspecting.header import bad_model
from lora_trainer.training.families.filling import WHOLE_MODEL, Device, Tensors, check_all_there, misshapen
from lora_trainer.training.families.tensors import read_tensors
from lora_trainer.training.held import FP8, Weight, as_is, from_fp8, from_nf4, round_to


def fill(
    model: nn.Module, path: Path, tensors: Tensors, names: Mapping[str, str], put: Callable[[str, Weight], None]
) -> None:
    """`put` gets each parameter's name and weight, mapped while it is used; `names` says which tensor that is.

    BadInput if a tensor is missing or has another shape.
    """
    check_all_there(path, tensors, names)
    for name, original in names.items():
        found, wanted = shape_of(original, tensors), tuple(model.get_parameter(name).shape)
        if found != wanted:
            raise misshapen(path, original, found, wanted)
    parameters = {original: name for name, original in names.items()}
    for original, weight in _read(path, tensors, parameters):
        put(parameters[original], weight)


def linear_of(model: nn.Module, name: str) -> nn.Linear | None:
    """The Linear layer whose weight the parameter `name` is, if it is one's."""
    parent, _, leaf = name.rpartition(".")
    layer = model.get_submodule(parent)
    return layer if isinstance(layer, nn.Linear) and leaf == "weight" else None


def computed(weight: Weight, dtype: torch.dtype, device: Device) -> Tensor:
    """The weight as it is computed with, in memory of its own."""
    full = weight.to(device).spread(dtype)
    return full.clone() if full is weight.tensors[0] else full


def kept(weight: Weight, hold: str | None, dtype: torch.dtype, device: Device) -> Weight:
    """The weight held as `hold` says, in memory of its own on `device`; one that is held so keeps its numbers."""
    if hold and weight.kind == hold:
        return Weight(tuple(tensor.to(device, copy=True) for tensor in weight.tensors), weight.form)
    return round_to(hold, computed(weight, dtype, device))


def _read(path: Path, tensors: Tensors, wanted: Iterable[str]) -> Iterator[tuple[str, Weight]]:
    """Each weight as the file has it; those in NF4 come last. BadInput if one of these is broken."""
    packed = [name for name in wanted if name + NF4_STATE in tensors]
    for name, tensor in read_tensors({name: tensors[name] for name in wanted if name not in packed}):
        yield name, _scaled(tensor, _scale(name, tensors))
    for name in packed:
        beside = {name + end: tensors[name + end] for end in NF4_BESIDE if name + end in tensors}
        found = dict(read_tensors({name: tensors[name], **beside}))
        try:
            yield name, from_nf4(found.pop(name), {key.removeprefix(f"{name}."): part for key, part in found.items()})
        except (KeyError, TypeError, ValueError):
            raise bad_model(path, f"has NF4 numbers in {name} that fit no weight", WHOLE_MODEL) from None


def _scaled(tensor: Tensor, scale: float) -> Weight:
    if tensor.dtype == FP8:
        return from_fp8(tensor, scale)
    return as_is(tensor if scale == 1 else tensor.float() * scale)


def _scale(name: str, tensors: Tensors) -> float:
    """What the numbers of a weight are to be multiplied by, as some files in fp8 say beside them."""
    beside = {end: tensors[key] for end in SCALES if (key := name.removesuffix(".weight") + end) in tensors}
    return next((float(scale) for _, scale in read_tensors(beside)), 1.0)

"""Modules filled from a file's tensors: built without memory, then given each tensor in its final precision.

They come frozen (no gradients) and in eval mode. Peak memory is the module itself and the one tensor at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.config.problems import BadInput
from lora_trainer.inspecting.header import TensorInfo, bad_model
from lora_trainer.training.families.tensors import read_tensors

Device = torch.device | str
Tensors = Mapping[str, TensorInfo]
Shapes = Mapping[str, tuple[int, ...]]
Piece = Callable[[str, Tensor], Tensor]

WHOLE_MODEL = "Choose an undamaged, whole checkpoint."


def below(prefix: str, tensors: Tensors) -> dict[str, TensorInfo]:
    return {name.removeprefix(prefix): info for name, info in tensors.items() if name.startswith(prefix)}


def parameter_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def shapes_of(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in tensors.items()}


def read_config(path: Path, read: Callable[..., Any], shapes: Shapes, *facts: object) -> Any:
    """A config read from tensors' shapes; BadInput names the tensor that it needs and that is missing."""
    try:
        return read(shapes, *facts)
    except KeyError as missing:
        raise bad_model(path, f"lacks the tensor {missing.args[0]}", WHOLE_MODEL) from None
    except (IndexError, ValueError) as error:
        raise bad_model(path, f"has tensors or metadata that fit no model ({error})", WHOLE_MODEL) from None


def empty(path: Path, build: Callable[[Any], Any], config: Any) -> Any:
    """The module without memory for its weights. BadInput if the config fits together in no module."""
    try:
        with torch.device("meta"):
            return build(config)
    except ValueError as error:
        raise bad_model(path, f"has tensors or metadata that fit no model ({error})", WHOLE_MODEL) from None


def filled(
    model: Any,
    path: Path,
    tensors: Tensors,
    names: Mapping[str, str],
    dtype: torch.dtype,
    device: Device,
    piece: Piece = lambda _, tensor: tensor,
) -> Any:
    """Gives each parameter its tensor: `names` says which, `piece(parameter, tensor)` takes its part of that."""
    check_all_there(path, tensors, names)
    users: dict[str, list[str]] = {}
    for name, original in names.items():
        users.setdefault(original, []).append(name)
    for original, tensor in read_tensors({original: tensors[original] for original in users}):
        for name in users[original]:
            part = fitted(piece(name, tensor), model.get_parameter(name).shape, path, original)
            set_parameter(model, name, own(part, dtype, device))
    return model.to(device).eval()  # the few buffers


def check_all_there(path: Path, tensors: Tensors, names: Mapping[str, str]) -> None:
    missing = sorted({original for original in names.values() if original not in tensors})
    if missing:
        more = f" and {len(missing) - 1} more tensors" if missing[1:] else ""
        raise bad_model(path, f"lacks the tensor {missing[0]}{more}", WHOLE_MODEL)


def fitted(tensor: Tensor, shape: torch.Size, path: Path, original: str) -> Tensor:
    """The tensor in `shape`, where a 1x1 convolution and a Linear may stand for each other; else BadInput."""
    ones = (1,) * abs(len(shape) - tensor.ndim)
    if tensor.shape == shape or tensor.shape + ones == shape or tensor.shape == shape + ones:
        return tensor.reshape(shape)
    raise misshapen(path, original, tensor.shape, shape)


def misshapen(path: Path, original: str, found: Sequence[int], wanted: Sequence[int]) -> BadInput:
    found_shape, wanted_shape = ("x".join(map(str, sizes)) for sizes in (found, wanted))
    return bad_model(path, f"has {original} in the shape {found_shape} instead of {wanted_shape}", WHOLE_MODEL)


def own(tensor: Tensor, dtype: torch.dtype, device: Device) -> Tensor:
    """A copy in memory of its own, a convolution's weights with channels last, as they are computed with."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(device, dtype, copy=True, memory_format=layout)


def set_parameter(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.Parameter(tensor, requires_grad=False))


@contextmanager
def said_of(setting: str) -> Iterator[None]:
    """Problems with a file are told as those of `setting`, which names it."""
    try:
        yield
    except BadInput as error:
        raise BadInput(replace(problem, setting=setting) for problem in error.problems) from None

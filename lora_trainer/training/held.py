"""Frozen weights as they lie in memory: as they are, in 8 bits, or in 4 bits.

In 8 bits each weight is an e4m3 float (Micikevicius et al. 2022, arXiv 2209.05433), times a power of two for each layer
that moves its weights to where e4m3 is finest. In 4 bits it is one of NF4's sixteen numbers times the largest of its
block (Dettmers et al. 2023, arXiv 2305.14314), rounded and spread by bitsandbytes.

Products are computed in the precision of their input: the weight is spread out for each one and forgotten after it, in
the backward pass again. What the backward pass keeps is the tensors that the weight lay in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from lora_trainer.inspecting.flux import NF4_STATE

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3; torch 2.1 has no finfo of it
BLOCK = 64  # weights of NF4 that share a largest one, as bitsandbytes has it


class Form(Protocol):
    """How the tensors of a weight become the weight. `kind`: "fp8", "nf4", or "" where they are the weight."""

    @property
    def kind(self) -> str: ...

    def spread(self, dtype: torch.dtype, *tensors: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class AsIs:
    kind = ""

    def spread(self, dtype: torch.dtype, *tensors: Tensor) -> Tensor:
        return tensors[0].to(dtype)


@dataclass(frozen=True)
class Fp8:
    """One e4m3 tensor in the weight's shape, to be multiplied by `unit`."""

    unit: float = 1.0
    kind = "fp8"

    def spread(self, dtype: torch.dtype, *tensors: Tensor) -> Tensor:
        full = tensors[0].to(dtype)
        return full if self.unit == 1 else full.mul_(self.unit)


@dataclass(frozen=True)
class Nf4:
    """uint8 (numbers / 2, 1), two numbers in each, and float32 (blocks,), the largest of each `block` of numbers."""

    shape: tuple[int, ...]
    block: int = BLOCK
    kind = "nf4"

    def spread(self, dtype: torch.dtype, *tensors: Tensor) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        packed, largest = tensors
        state = QuantState(largest, torch.Size(self.shape), blocksize=self.block, quant_type="nf4", dtype=dtype)
        return dequantize_4bit(packed, state)


@dataclass(frozen=True)
class Weight:
    """A frozen weight: its tensors, and what they are."""

    tensors: tuple[Tensor, ...]
    form: Form

    @property
    def kind(self) -> str:
        return self.form.kind

    def spread(self, dtype: torch.dtype) -> Tensor:
        """The weight as it is computed with."""
        return self.form.spread(dtype, *self.tensors)

    def to(self, device: torch.device | str) -> Weight:
        return Weight(tuple(tensor.to(device) for tensor in self.tensors), self.form)


def as_is(weight: Tensor) -> Weight:
    return Weight((weight,), AsIs())


def from_fp8(numbers: Tensor, unit: float = 1.0) -> Weight:
    """A file's own e4m3 numbers, times `unit`."""
    return Weight((numbers,), Fp8(unit))


def from_nf4(packed: Tensor, state: Mapping[str, Tensor]) -> Weight:
    """A file's own NF4 numbers (uint8), `state` being the tensors that bitsandbytes saves beside them, by their names
    there: `absmax`, `quant_map`, `quant_state.bitsandbytes__nf4`, and where the largest ones are held in 8 bits
    themselves `nested_absmax` and `nested_quant_map`.

    KeyError for one that is missing, ValueError where they do not fit together.
    """
    facts = json.loads(bytes(state[NF4_STATE.removeprefix(".")].tolist()))
    largest = state["absmax"]
    if "nested_absmax" in state:
        numbers = state["nested_quant_map"].float()[largest.long()].split(facts["nested_blocksize"])
        outer = state["nested_absmax"].float()
        largest = torch.cat([part * unit for part, unit in zip(numbers, outer)]) + facts["nested_offset"]
    shape, block = tuple(facts["shape"]), facts["blocksize"]
    count = math.prod(shape)
    if facts["quant_type"] != "nf4" or (packed.numel(), largest.numel()) != (-(-count // 2), -(-count // block)):
        raise ValueError(f"{facts['quant_type']} of {packed.numel()} bytes is no NF4 weight of the shape {shape}")
    return Weight((packed.reshape(-1, 1), largest.float()), Nf4(shape, block))


@torch.no_grad()
def round_to(kind: str | None, weight: Tensor) -> Weight:
    """A computed weight, on its device, held as `kind` says: "fp8", "nf4", or as it is."""
    if not kind:
        return as_is(weight)
    if kind == "fp8":
        unit = _unit(float(weight.abs().amax()))
        return Weight(((weight.float() / unit).to(FP8),), Fp8(unit))
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=BLOCK, quant_type="nf4")
    return Weight((packed, state.absmax), Nf4(tuple(weight.shape)))


def _unit(largest: float) -> float:
    """The power of two that brings the largest weight close below e4m3's largest number; 1 where there is none."""
    return 2.0 ** math.ceil(math.log2(largest / LARGEST)) if largest > 0 else 1.0


class Held(nn.Module):
    """A frozen layer whose `weight` is computed each time it is asked for; `home` has the tensors that there are.

    `here`: their copies where the layer computes, while there are any: `home` may lie in host memory.
    """

    home: nn.ParameterList
    here: tuple[Tensor, ...] | None
    form: Form
    dtype: torch.dtype

    @property
    def held(self) -> Weight:
        return Weight(self.here or tuple(self.home), self.form)

    @property
    def weight(self) -> Tensor:
        return self.held.spread(self.dtype)


class HeldLinear(Held, nn.Linear):  # type: ignore[override]
    def forward(self, input: Tensor, *unused: object) -> Tensor:
        return _Linear.apply(input, self.bias, self.form, *self.held.tensors)


class HeldConv2d(Held, nn.Conv2d):  # type: ignore[override]
    def forward(self, input: Tensor, *unused: object) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return _Conv2d.apply(input, self.bias, geometry, self.form, *self.held.tensors)


Layer = nn.Linear | nn.Conv2d


def held(layer: Layer) -> Weight:
    """A frozen layer's weight as it lies where the layer computes."""
    return layer.held if isinstance(layer, Held) else as_is(layer.weight)


def place_of(layer: Layer) -> torch.device:
    """Where a frozen layer computes: its bias lies there, also while its weight waits in host memory."""
    return layer.bias.device if layer.bias is not None else held(layer).tensors[0].device


def hold(model: nn.Module, kind: str, device: torch.device | None = None) -> None:
    """Rounds every frozen Linear and Conv2d of `model`, in place; a LoRA may lie on them already.

    `kind`: "fp8" or "nf4", which convolutions take for fp8. Each is rounded where it computes and stays where it lies,
    unless a `device` is given: then all of `model`, its small vectors, too, comes there. Memory peaks at one layer.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and _can_be_rounded(layer):
            weight = held(layer).tensors[0]
            rounded = round_to(kind if isinstance(layer, nn.Linear) else "fp8", weight.to(device or place_of(layer)))
            put_into(layer, rounded.to(device or weight.device), weight.dtype)
    if device is not None:
        model.to(device)


def put_into(layer: Layer, weight: Weight, dtype: torch.dtype) -> None:
    """Gives a frozen layer, which may be without memory, this weight, to be computed with in `dtype`; in place."""
    if "weight" in layer._parameters:
        del layer.weight
    # In place, as torch's parametrize does: a LoRA's layer, or LyCORIS's, refers to it.
    layer.__class__ = HeldLinear if isinstance(layer, nn.Linear) else HeldConv2d
    some: Any = layer
    some.home = nn.ParameterList(nn.Parameter(tensor, requires_grad=False) for tensor in weight.tensors)
    some.here, some.form, some.dtype = None, weight.form, dtype


def _can_be_rounded(layer: Layer) -> bool:
    """False for what is trained, is rounded already, or pads with something else than zeros."""
    weight = held(layer)
    plain = weight.kind == "" and not weight.tensors[0].requires_grad
    return plain and (isinstance(layer, nn.Linear) or layer.padding_mode == "zeros")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, form: Form, *weight: Tensor) -> Tensor:
        ctx.save_for_backward(*weight)
        ctx.form = form
        return F.linear(x, form.spread(x.dtype, *weight), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.saved_tensors
        return grad @ ctx.form.spread(grad.dtype, *weight), None, None, *(None for _ in weight)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, geometry: Any, form: Form, *weight: Tensor) -> Tensor:
        ctx.save_for_backward(*weight)
        ctx.form, ctx.geometry, ctx.shape = form, geometry, x.shape
        return F.conv2d(x, form.spread(x.dtype, *weight), bias, *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.saved_tensors
        full = ctx.form.spread(grad.dtype, *weight)
        return conv2d_input(ctx.shape, full, grad, *ctx.geometry), None, None, None, *(None for _ in weight)

"""A frozen base held in 8 bits: each weight is an e4m3 float (Micikevicius et al. 2022, arXiv 2209.05433), times a
power of two for each layer that moves its weights to where e4m3 is finest.

Products are computed in the precision of their input: the weight is spread out for each one and forgotten after it, in
the backward pass again. So a layer takes one byte for each weight, however many layers a step goes through.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3; torch 2.1 has no finfo of it


def hold_in_fp8(model: nn.Module, device: torch.device | None = None) -> None:
    """Rounds every frozen Linear and Conv2d of `model` to 8 bits, in place; a LoRA may lie on them already.

    The rest of `model`, its small vectors, is moved to `device` as it is, if one is given. Memory peaks at one layer.
    """
    for layer in model.modules():
        kind = _held_kind(layer)
        if kind is not None:
            _hold(layer, kind, device)
    if device is not None:
        model.to(device)


def held(layer: nn.Linear | nn.Conv2d) -> tuple[Tensor, float]:
    """A frozen layer's weight as it lies in memory, and what it is to be multiplied by: arguments of `spread`."""
    if isinstance(layer, (HeldLinear, HeldConv2d)):
        return layer.held, layer.unit
    return layer.weight, 1.0


def spread(weight: Tensor, unit: float, dtype: torch.dtype) -> Tensor:
    """The weight as it is computed with; one that is not held in 8 bits stays as it is."""
    return weight.to(dtype).mul_(unit) if weight.dtype == FP8 else weight


class HeldLinear(nn.Linear):
    """`weight` is computed each time it is asked for; `held` and `unit` are what there is."""

    held: nn.Parameter
    unit: float
    dtype: torch.dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return spread(self.held, self.unit, self.dtype)

    def forward(self, input: Tensor, *unused: object) -> Tensor:
        return _Linear.apply(input, self.held, self.unit, self.bias)


class HeldConv2d(nn.Conv2d):
    """Likewise."""

    held: nn.Parameter
    unit: float
    dtype: torch.dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return spread(self.held, self.unit, self.dtype)

    def forward(self, input: Tensor, *unused: object) -> Tensor:
        geometry = (self.stride, self.padding, self.dilation, self.groups)
        return _Conv2d.apply(input, self.held, self.unit, self.bias, geometry)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, unit: float, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.unit = unit
        return F.linear(x, spread(weight, unit, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return grad @ spread(weight, ctx.unit, grad.dtype), None, None, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, unit: float, bias: Tensor | None, geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.unit, ctx.geometry, ctx.shape = unit, geometry, x.shape
        return F.conv2d(x, spread(weight, unit, x.dtype), bias, *geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        full = spread(weight, ctx.unit, grad.dtype)
        return conv2d_input(ctx.shape, full, grad, *ctx.geometry), None, None, None, None


def _held_kind(layer: nn.Module) -> type[HeldLinear] | type[HeldConv2d] | None:
    """What a layer becomes; None for what is trained, is held already, or is neither Linear nor Conv2d."""
    if isinstance(layer, (HeldLinear, HeldConv2d)) or not isinstance(layer, (nn.Linear, nn.Conv2d)):
        return None
    if layer.weight.requires_grad:
        return None
    if isinstance(layer, nn.Linear):
        return HeldLinear
    return HeldConv2d if layer.padding_mode == "zeros" else None


@torch.no_grad()
def _hold(layer: Any, kind: type[HeldLinear] | type[HeldConv2d], device: torch.device | None) -> None:
    weight = layer.weight.to(device or layer.weight.device)
    unit = _unit(float(weight.abs().amax()))
    del layer.weight
    layer.__class__ = kind  # in place, as torch's parametrize does: a LoRA's layer, or LyCORIS's, refers to it
    layer.unit, layer.dtype = unit, weight.dtype
    layer.held = nn.Parameter((weight.float() / unit).to(FP8), requires_grad=False)


def _unit(largest: float) -> float:
    """The power of two that brings the largest weight close below e4m3's largest number; 1 where there is none."""
    return 2.0 ** math.ceil(math.log2(largest / LARGEST)) if largest > 0 else 1.0

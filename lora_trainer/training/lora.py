"""The LoRA of one model: low-rank branches beside frozen layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Dropouts:
    """Probabilities, 0 to 1: of a low-rank feature's elements, of whole ranks, of whole modules."""

    network: float = 0.0
    rank: float = 0.0
    module: float = 0.0

    def __bool__(self) -> bool:
        return any((self.network, self.rank, self.module))


NO_DROPOUTS = Dropouts()


class LowRankLinear(torch.autograd.Function):
    """`x W^T + b + scale (x A^T) B^T` as one node of the graph.

    The product is added into the base's output in place and only `x` and the rank-wide `x A^T` are kept for the
    backward pass, where plain autograd keeps and moves three more tensors of the layer's full width.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, down, up, scale):  # type: ignore[no-untyped-def]
        rows = x.reshape(-1, x.shape[-1])
        down_cast, up_cast = down.to(x.dtype), up.to(x.dtype)
        features = rows @ down_cast.t()
        out = F.linear(rows, weight, bias)
        out.addmm_(features, up_cast.t(), alpha=scale)
        ctx.save_for_backward(rows, features, weight, down, up)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        rows, features, weight, down, up = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        down_cast, up_cast = down.to(grad.dtype), up.to(grad.dtype)
        grad_features = (grad @ up_cast).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(grad_features, down_cast)
            grad_x = grad_x.view(ctx.shape)
        grad_down = (grad_features.t() @ rows).to(down.dtype)
        grad_up = (grad.t() @ features).mul_(ctx.scale).to(up.dtype)
        return grad_x, None, None, grad_down, grad_up, None


class LoraLayer(nn.Module):
    """A frozen Linear or Conv2d and its low-rank branch; takes the frozen layer's place in the model.

    The branch's weights are float32 whatever the base's precision; its products run in the input's precision.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, dropouts: Dropouts):
        super().__init__()
        self.base = base
        self.rank, self.alpha, self.dropouts = rank, alpha, dropouts
        device = base.weight.device
        down, up = branch_shapes(base, rank)
        self.lora_down = nn.Parameter(torch.zeros(down, device=device, dtype=torch.float32))
        self.lora_up = nn.Parameter(torch.zeros(up, device=device, dtype=torch.float32))
        self.multiplier = 1.0

    @property
    def scale(self) -> float:
        return self.alpha / self.rank * self.multiplier

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Down as torch initialises a Linear (uniform within 1/sqrt(fan-in)), up zero: the model starts unchanged."""
        bound = 1 / math.sqrt(self.lora_down[0].numel())
        self.lora_down.copy_(torch.empty(self.lora_down.shape).uniform_(-bound, bound, generator=generator))
        self.lora_up.zero_()

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        if self.multiplier == 0:
            return self.base(x)
        if self.training and self.dropouts:
            return self._forward_with_dropouts(x)
        if isinstance(self.base, nn.Linear):
            return self._low_rank_linear(x)
        if self.base.kernel_size == (1, 1) and self.base.stride == (1, 1):
            return self._low_rank_linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.base(x) + self._branch_up(self._branch_down(x)) * self.scale

    def _low_rank_linear(self, x: Tensor) -> Tensor:
        """x (..., in); a 1x1 convolution is the same product, and with channels last its rows already lie so."""
        weight, down, up = self.base.weight.flatten(1), self.lora_down.flatten(1), self.lora_up.flatten(1)
        return LowRankLinear.apply(x, weight, self.base.bias, down, up, self.scale)

    def _branch_down(self, x: Tensor) -> Tensor:
        weight = self.lora_down.to(x.dtype)
        if isinstance(self.base, nn.Linear):
            return F.linear(x, weight)
        return F.conv2d(x, weight, None, self.base.stride, self.base.padding, self.base.dilation)

    def _branch_up(self, features: Tensor) -> Tensor:
        weight = self.lora_up.to(features.dtype)
        return F.linear(features, weight) if isinstance(self.base, nn.Linear) else F.conv2d(features, weight)

    def _forward_with_dropouts(self, x: Tensor) -> Tensor:
        out = self.base(x)
        if self.dropouts.module and torch.rand(()) < self.dropouts.module:
            return out
        features, scale = F.dropout(self._branch_down(x), self.dropouts.network), self.scale
        if self.dropouts.rank:
            features = features * self._kept_ranks(features)
            scale /= 1 - self.dropouts.rank
        return out + self._branch_up(features) * scale

    def _kept_ranks(self, features: Tensor) -> Tensor:
        """A 0/1 mask of whole ranks per sample, shaped to multiply `features`."""
        kept = (torch.rand(len(features), self.rank) > self.dropouts.rank).to(features)
        inner = [1] * (features.ndim - 2)
        shape = (len(kept), *inner, self.rank) if isinstance(self.base, nn.Linear) else (len(kept), self.rank, *inner)
        return kept.view(shape)


def branch_shapes(base: nn.Linear | nn.Conv2d, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of (down, up): (rank, in) and (out, rank); for a convolution (rank, in, k, k) and (out, rank, 1, 1)."""
    if isinstance(base, nn.Linear):
        return (rank, base.in_features), (base.out_features, rank)
    return (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)


@dataclass(frozen=True)
class Target:
    """One module that gets a LoRA: where it stands in its model, and its name in the file."""

    model: nn.Module
    module: str
    key: str
    rank: int
    alpha: float
    lr_weight: float = 1.0


class LoraNetwork:
    """All LoRA layers of a run by their key in the file, in the file's order."""

    def __init__(self, targets: Iterable[Target], dropouts: Dropouts = NO_DROPOUTS):
        self.layers: dict[str, LoraLayer] = {}
        self.lr_weights: dict[str, float] = {}
        for target in targets:
            parent = target.model.get_submodule(target.module.rpartition(".")[0])
            name = target.module.rpartition(".")[2]
            layer = LoraLayer(getattr(parent, name), target.rank, target.alpha, dropouts)
            setattr(parent, name, layer)
            self.layers[target.key] = layer
            self.lr_weights[target.key] = target.lr_weight

    def initialise(self, generator_of: Callable[[str], torch.Generator]) -> None:
        """Draws each layer's start from the CPU generator of its key."""
        for key, layer in self.layers.items():
            layer.initialise(generator_of(key))

    def parameters(self) -> list[nn.Parameter]:
        return [weight for layer in self.layers.values() for weight in (layer.lora_down, layer.lora_up)]

    def set_multiplier(self, multiplier: float) -> None:
        """Strength of every branch; 0 gives the untrained base."""
        for layer in self.layers.values():
            layer.multiplier = multiplier

    def train(self, mode: bool) -> None:
        for layer in self.layers.values():
            layer.train(mode)

    def state_dict(self) -> dict[str, Tensor]:
        """The LoRA file's tensors: `KEY.lora_down.weight`, `KEY.lora_up.weight` (float32), `KEY.alpha` (scalar)."""
        tensors = {}
        for key, layer in self.layers.items():
            tensors[f"{key}.alpha"] = torch.tensor(layer.alpha)
            tensors[f"{key}.lora_down.weight"] = layer.lora_down.detach()
            tensors[f"{key}.lora_up.weight"] = layer.lora_up.detach()
        return tensors

    @torch.no_grad()
    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Takes over every tensor that is there; returns the keys of layers that `tensors` has no fitting pair for."""
        missing = []
        for key, layer in self.layers.items():
            down, up = tensors.get(f"{key}.lora_down.weight"), tensors.get(f"{key}.lora_up.weight")
            if down is None or up is None or down.shape[:2] != layer.lora_down.shape[:2]:
                missing.append(key)
                continue
            layer.lora_down.copy_(down.reshape(layer.lora_down.shape))
            layer.lora_up.copy_(up.reshape(layer.lora_up.shape))
        return tuple(missing)

    @torch.no_grad()
    def limit_norms(self, longest: float) -> int:
        """Scales every layer whose `scale * up @ down` is longer (Frobenius) than `longest`; returns how many were.

        Max-norm regularisation as sd-scripts' `scale_weight_norms`.
        """
        scaled = 0
        for layer in self.layers.values():
            down, up = layer.lora_down.flatten(1), layer.lora_up.flatten(1)
            # |up @ down|^2 = trace((up^T up)(down down^T)): rank x rank products instead of the full matrix
            norm = (up.t() @ up).mul(down @ down.t()).sum().clamp(min=0).sqrt() * layer.alpha / layer.rank
            if norm > longest:
                ratio = (longest / norm).sqrt()
                layer.lora_down.mul_(ratio)
                layer.lora_up.mul_(ratio)
                scaled += 1
        return scaled

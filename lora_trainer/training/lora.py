"""The LoRA of one model: low-rank branches beside frozen layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_trainer.training.held import held, place_of
from lora_trainer.training.randomness import draw_rows, is_part


@dataclass(frozen=True)
class Dropouts:
    """Probabilities, 0 to 1: of a low-rank feature's elements, of whole ranks, of whole modules."""

    network: float = 0.0
    rank: float = 0.0
    module: float = 0.0

    def __bool__(self) -> bool:
        return any((self.network, self.rank, self.module))


NO_DROPOUTS = Dropouts()


class Layer(Protocol):
    """A frozen Linear or Conv2d and what is trained beside it; an `nn.Module` that takes the frozen layer's place.

    `multiplier` is the strength of what was trained; 0 gives the frozen layer alone.
    """

    multiplier: float

    def initialise(self, generator: torch.Generator) -> None:
        """Draws the weights to begin with from a CPU generator; the layer then computes what the frozen one does."""

    def weights(self) -> list[nn.Parameter]:
        """What is trained, float32."""

    def tensors(self) -> dict[str, Tensor]:
        """The layer in the LoRA file, by its names there without the layer's key."""

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        """Takes over all that `tensors` returned, in any dtype; False, and nothing is changed, if it does not fit."""

    def limit_norm(self, longest: float) -> bool:
        """Shortens what is added to the frozen weight to a Frobenius norm of `longest`; whether that was needed."""

    def train(self, mode: bool) -> object: ...


MakeLayer = Callable[[Any, int, float], Layer]  # of a frozen layer, a rank and an alpha


class LowRankLinear(torch.autograd.Function):
    """`x W^T + b + scale (x A^T) B^T` as one node of the graph, W being what `form` makes of `weight`.

    The product is added into the base's output in place and only `x` and the rank-wide `x A^T` are kept for the
    backward pass, where plain autograd keeps and moves three more tensors of the layer's full width.
    """

    @staticmethod
    def forward(ctx, x, bias, down, up, scale, form, *weight):  # type: ignore[no-untyped-def]
        rows = x.reshape(-1, x.shape[-1])
        down_cast, up_cast = down.to(x.dtype), up.to(x.dtype)
        features = rows @ down_cast.t()
        out = F.linear(rows, form.spread(x.dtype, *weight).flatten(1), bias)
        out.addmm_(features, up_cast.t(), alpha=scale)
        ctx.save_for_backward(rows, features, down, up, *weight)
        ctx.scale, ctx.shape, ctx.form = scale, x.shape, form
        return out.view(*x.shape[:-1], up.shape[0])

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        rows, features, down, up, *weight = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        down_cast, up_cast = down.to(grad.dtype), up.to(grad.dtype)
        grad_features = (grad @ up_cast).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ ctx.form.spread(grad.dtype, *weight).flatten(1)
            grad_x.addmm_(grad_features, down_cast)
            grad_x = grad_x.view(ctx.shape)
        grad_down = (grad_features.t() @ rows).to(down.dtype)
        grad_up = (grad.t() @ features).mul_(ctx.scale).to(up.dtype)
        return grad_x, None, grad_down, grad_up, None, None, *(None for _ in weight)


class LoraLayer(nn.Module):
    """A frozen Linear or Conv2d and its low-rank branch; takes the frozen layer's place in the model.

    The branch's weights are float32 whatever the base's precision; its products run in the input's precision.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, dropouts: Dropouts = NO_DROPOUTS):
        super().__init__()
        self.base = base
        self.rank, self.alpha, self.dropouts = rank, alpha, dropouts
        device = place_of(base)
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

    def weights(self) -> list[nn.Parameter]:
        return [self.lora_down, self.lora_up]

    def tensors(self) -> dict[str, Tensor]:
        down, up = self.lora_down.detach(), self.lora_up.detach()
        return {"alpha": torch.tensor(self.alpha), "lora_down.weight": down, "lora_up.weight": up}

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        fits = copy_fitting(tensors, {"lora_down.weight": self.lora_down, "lora_up.weight": self.lora_up})
        if fits:
            rescale(self.lora_up, tensors, self.alpha, self.rank)
        return fits

    @torch.no_grad()
    def limit_norm(self, longest: float) -> bool:
        down, up = self.lora_down.flatten(1), self.lora_up.flatten(1)
        # |up @ down|^2 = trace((up^T up)(down down^T)): rank x rank products instead of the full matrix
        norm = (up.t() @ up).mul(down @ down.t()).sum().clamp(min=0).sqrt() * self.alpha / self.rank
        return shorten(self.weights(), norm, longest)

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
        weight, down, up = held(self.base), self.lora_down.flatten(1), self.lora_up.flatten(1)
        return LowRankLinear.apply(x, self.base.bias, down, up, self.scale, weight.form, *weight.tensors)

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
        features, scale = dropped(self._branch_down(x), self.dropouts.network), self.scale
        if self.dropouts.rank:
            features = features * self._kept_ranks(features)
            scale /= 1 - self.dropouts.rank
        return out + self._branch_up(features) * scale

    def _kept_ranks(self, features: Tensor) -> Tensor:
        """A 0/1 mask of whole ranks per sample, shaped to multiply `features`."""
        drawn = draw_rows(len(features), lambda rows: torch.rand(rows, self.rank))
        kept = (drawn > self.dropouts.rank).to(features)
        inner = [1] * (features.ndim - 2)
        shape = (len(kept), *inner, self.rank) if isinstance(self.base, nn.Linear) else (len(kept), self.rank, *inner)
        return kept.view(shape)


def dropped(features: Tensor, probability: float) -> Tensor:
    """`F.dropout` of features (B, ...): the same of each sample, whatever part of its batch is computed."""
    if probability == 0 or not is_part():
        return F.dropout(features, probability)
    side_by_side = features.ndim == 4 and features.is_contiguous(memory_format=torch.channels_last)
    lie = torch.channels_last if side_by_side else torch.contiguous_format  # draws go by the order in memory

    def draw(rows: int) -> Tensor:
        return F.dropout(features.new_ones(rows, *features.shape[1:]).contiguous(memory_format=lie), probability)

    return features * draw_rows(len(features), draw)


def branch_shapes(base: nn.Linear | nn.Conv2d, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of (down, up): (rank, in) and (out, rank); for a convolution (rank, in, k, k) and (out, rank, 1, 1)."""
    if isinstance(base, nn.Linear):
        return (rank, base.in_features), (base.out_features, rank)
    return (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)


@torch.no_grad()
def copy_fitting(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Copies over each weight the tensor of its name. False, and nothing is changed, unless all of them fit.

    A 1x1 convolution's (out, in, 1, 1) and a Linear's (out, in) fit each other. `tensors` may hold an alpha too, but
    nothing else: it would be of another kind of network.
    """
    fit = tensors.keys() - {"alpha"} == weights.keys() and all(
        tensors[name].shape[:2] == weight.shape[:2] and tensors[name].numel() == weight.numel()
        for name, weight in weights.items()
    )
    for name, weight in weights.items() if fit else ():
        weight.copy_(tensors[name].reshape(weight.shape))
    return fit


@torch.no_grad()
def rescale(factor: nn.Parameter, tensors: Mapping[str, Tensor], alpha: float, rank: int) -> None:
    """Makes up for another alpha in the file than the layer's; without one a file is scaled by 1, as alpha = rank."""
    factor.mul_(tensors.get("alpha", torch.tensor(float(rank))).to(factor) / torch.tensor(alpha).to(factor))


@torch.no_grad()
def shorten(factors: list[nn.Parameter], norm: Tensor, longest: float) -> bool:
    """Scales the factors of a product alike, so that its `norm` becomes `longest`; False where it is no longer."""
    if not norm > longest:
        return False
    for factor in factors:
        factor.mul_((longest / norm) ** (1 / len(factors)))
    return True


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
    """All layers of a run by their key in the file, in the file's order."""

    def __init__(self, targets: Iterable[Target], make_layer: MakeLayer = LoraLayer):
        self.layers: dict[str, Layer] = {}
        self.lr_weights: dict[str, float] = {}
        for target in targets:
            parent = target.model.get_submodule(target.module.rpartition(".")[0])
            name = target.module.rpartition(".")[2]
            layer = make_layer(getattr(parent, name), target.rank, target.alpha)
            setattr(parent, name, layer)
            self.layers[target.key] = layer
            self.lr_weights[target.key] = target.lr_weight

    def initialise(self, generator_of: Callable[[str], torch.Generator]) -> None:
        """Draws each layer's start from the CPU generator of its key."""
        for key, layer in self.layers.items():
            layer.initialise(generator_of(key))

    def parameters(self) -> list[nn.Parameter]:
        return [weight for layer in self.layers.values() for weight in layer.weights()]

    def set_multiplier(self, multiplier: float) -> None:
        """Strength of every layer; 0 gives the untrained base."""
        for layer in self.layers.values():
            layer.multiplier = multiplier

    def train(self, mode: bool) -> None:
        for layer in self.layers.values():
            layer.train(mode)

    def state_dict(self) -> dict[str, Tensor]:
        """The LoRA file's tensors, such as `KEY.lora_down.weight` (float32) and `KEY.alpha` (scalar)."""
        layers = self.layers.items()
        return {f"{key}.{name}": tensor for key, layer in layers for name, tensor in layer.tensors().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Takes over every tensor that is there; returns the keys of layers that `tensors` has no fitting ones for."""
        by_key: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in tensors.items():
            key, _, rest = name.partition(".")
            by_key[key][rest] = tensor
        return tuple(key for key, layer in self.layers.items() if not layer.load(by_key[key]))

    def limit_norms(self, longest: float) -> int:
        """Shortens every layer's change of its weight that is longer (Frobenius) than `longest`; returns how many were.

        Max-norm regularisation as sd-scripts' `scale_weight_norms`.
        """
        return sum(layer.limit_norm(longest) for layer in self.layers.values())

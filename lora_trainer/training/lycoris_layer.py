"""LoHa, LoKr and DoRA: the weights and the products are LyCORIS's (Yeh et al. 2023, https://arxiv.org/abs/2309.14859).

Importing this imports LyCORIS, which takes a moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from torch import Tensor, nn

from lora_trainer.training.held import place_of
from lora_trainer.training.lora import NO_DROPOUTS, Dropouts, copy_fitting, rescale, shorten

logging.getLogger("LyCORIS").setLevel(logging.ERROR)  # it would write on stdout, which belongs to our own events

MODULES: dict[str, Callable[..., Any]] = {
    "LoHa": LohaModule,
    "LoKr": LokrModule,
    # A length for each input, as in the paper (Liu et al. 2024, https://arxiv.org/abs/2402.09353). LyCORIS's default is
    # one for each output, which A1111 takes for the former and Forge divides by the wrong norm.
    "DoRA": partial(LoConModule, weight_decompose=True, wd_on_out=False),
}


class LycorisLayer(nn.Module):
    """A frozen Linear or Conv2d and a change of its weight; takes the frozen layer's place in the model.

    The change is made up in float32 and rounded to the input's precision before it meets the input: added to a bf16
    weight, as LyCORIS itself does, small changes would be lost.
    """

    def __init__(
        self, base: nn.Linear | nn.Conv2d, rank: int, alpha: float, kind: str,
        dropouts: Dropouts = NO_DROPOUTS, lokr_factor: int = -1,
    ):  # fmt: skip
        super().__init__()
        self.base = base
        self.rank, self.alpha, self.dropouts = rank, alpha, dropouts
        self.multiplier = 1.0
        self._fresh = partial(MODULES[kind], "", base, lora_dim=rank, alpha=alpha, factor=lokr_factor)
        self.change = self._fresh().to(place_of(base))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """As LyCORIS begins: one factor is zero, and DoRA's lengths are the frozen weight's, so nothing is changed."""
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(generator.initial_seed())
            self.change.load_state_dict(self._fresh().state_dict())

    def weights(self) -> list[nn.Parameter]:
        return list(self.change.parameters())

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.change.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> bool:
        fits = copy_fitting(tensors, dict(self.change.named_parameters()))
        if fits and not self._is_unscaled:
            rescale(self._factors[-1], tensors, self.alpha, self.rank)
        return fits

    @torch.no_grad()
    def limit_norm(self, longest: float) -> bool:
        return shorten(self._factors, self.product().norm(), longest)

    @property
    def _factors(self) -> list[nn.Parameter]:
        return [weight for name, weight in self.change.named_parameters() if name != "dora_scale"]

    @property
    def _is_unscaled(self) -> bool:
        """A LoKr of two whole matrices has no rank that its alpha could be set against."""
        return isinstance(self.change, LokrModule) and self.change.use_w1 and self.change.use_w2

    def forward(self, x: Tensor, *unused: object) -> Tensor:
        out = self.base(x)
        if self.multiplier == 0 or self._is_left_out():
            return out
        delta = (self.delta() * self.multiplier).to(x.dtype)
        return out + self.change.op(x, delta, None, **self.change.kw_dict)

    def _is_left_out(self) -> bool:
        return self.training and self.dropouts.module > 0 and bool(torch.rand(()) < self.dropouts.module)

    def delta(self) -> Tensor:
        """What is added to the frozen weight at a multiplier of 1, float32, in the weight's shape."""
        product = self.product()
        if self.training and self.dropouts.rank:
            product = product * self._kept_outputs(product)
        if not self.change.wd:
            return product
        weight = self.base.weight.float()
        return self.change.apply_weight_decompose(weight + product) - weight

    def product(self) -> Tensor:
        """The factors multiplied out and scaled by alpha / rank: without DoRA's lengths."""
        if isinstance(self.change, LoConModule):
            return self.change.make_weight() * self.change.scale
        return self.change.get_weight(self.change.shape)

    def _kept_outputs(self, product: Tensor) -> Tensor:
        """LyCORIS's rank dropout: a 0/1 mask of the change's rows, shaped to multiply it."""
        kept = torch.rand(len(product)) > self.dropouts.rank
        return kept.to(product).view(-1, *[1] * (product.ndim - 1))

"""Blocks whose frozen weights wait in host memory and are copied to the device ahead of their use.

The weights never go back: the copies are simply dropped. Gradients need them in the backward pass again, where
checkpointing, which such a model is trained with, computes a block a second time and so has it copied again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.training.held import HeldLinear, Weight, as_is, held, put_into

LOG = logging.getLogger(__name__)
SLAB = 2**30  # bytes
ALIGNED = 256  # bytes, as a GPU's own memory is
FLUX_WEIGHTS, DOUBLE_WEIGHTS, SINGLE_WEIGHTS = 11_901_408_320, 339_738_624, 141_557_760  # Flux.1's, and a block's


def waiting(double: int, single: int, swap_blocks: int) -> frozenset[str]:
    """Names such as "double_blocks.3" of a Flux transformer's blocks that wait in host memory.

    In the unit of sd-scripts' `blocks_to_swap`: half of `swap_blocks` are double blocks, and for each of the rest two
    single blocks wait, which are half as large. They lie as far apart as they can: while those between them compute,
    there is time to copy.
    """
    doubles = swap_blocks // 2
    numbers = {"double_blocks": (doubles, double), "single_blocks": (2 * (swap_blocks - doubles), single)}
    return frozenset(f"{name}.{at}" for name, (count, of) in numbers.items() for at in _apart(min(count, of), of))


def weights_waiting(swap_blocks: int) -> int:
    """How many weights of Flux.1 then wait in host memory."""
    doubles = swap_blocks // 2
    return doubles * DOUBLE_WEIGHTS + 2 * (swap_blocks - doubles) * SINGLE_WEIGHTS


def _apart(count: int, of: int) -> list[int]:
    """`count` of the numbers below `of`, evenly."""
    return [at for at in range(of) if (at + 1) * count // of > at * count // of]


def swap_blocks(transformer: Any, count: int, device: torch.device) -> Swap:
    """Lets `waiting` blocks of a loaded Flux transformer wait, and brings the others' weights to `device`."""
    away = waiting(len(transformer.double_blocks), len(transformer.single_blocks), count)
    blocks = {
        f"{name}.{at}": block
        for name in ("double_blocks", "single_blocks")
        for at, block in enumerate(getattr(transformer, name))
    }
    for name, block in blocks.items():
        if name not in away:
            for layer in _layers(block):
                put_into(layer, held(layer).to(device), layer.dtype)
    return Swap([block for name, block in blocks.items() if name in away], device)


def stream(model: nn.Module, blocks: Iterable[nn.Module], device: torch.device) -> Swap:
    """Lets all of a model's `blocks` wait, such as a text encoder's, and brings the rest of it to `device`."""
    blocks = list(blocks)
    swap = Swap(blocks, device)
    waits = [(layer, layer.home) for block in blocks for layer in _layers(block)]
    for layer, _ in waits:
        layer.home = nn.ParameterList()
    model.to(device)
    for layer, home in waits:
        layer.home = home
    return swap


class Swap:
    """`blocks` in the order of their use. Each is there when it is called, and the next one is on its way by then.

    Copies of two are on the device at most. They go by the order in which blocks are called: forward, in a backward
    pass that computes them again backward; another order costs time, as the block at hand is then waited for.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device):
        self._blocks = [_layers(block) for block in blocks]
        self._copier, self._there, self._last = Copier(device), dict[int, Any](), -1
        host = HostMemory(device.type == "cuda")
        for layers in self._blocks:
            for layer in layers:
                weight = held(layer)
                put_into(layer, Weight(tuple(map(host.at_home, weight.tensors)), weight.form), layer.dtype)
        self._hooks = [block.register_forward_pre_hook(partial(self._enter, at)) for at, block in enumerate(blocks)]

    def end(self) -> None:
        """The blocks then wait on, and nobody brings them."""
        for hook in self._hooks:
            hook.remove()
        for at in list(self._there):
            self._drop(at)

    def _enter(self, at: int, *unused: object) -> None:
        ahead = self._after(at)
        for other in set(self._there) - {at, ahead}:
            self._drop(other)
        self._bring(at)
        self._copier.wait(self._there[at])
        self._bring(ahead)
        self._last = at

    def _after(self, at: int) -> int:
        """The block that is likely the next one to be called."""
        if not torch.is_grad_enabled():
            return (at + 1) % len(self._blocks)
        if at == 0 or self._last < at < len(self._blocks) - 1:
            return min(at + 1, len(self._blocks) - 1)
        return at - 1

    def _bring(self, at: int) -> None:
        if at not in self._there:
            layers = self._blocks[at]
            copies, self._there[at] = self._copier.copies([held(layer).tensors for layer in layers])
            for layer, tensors in zip(layers, copies):
                layer.here = tensors

    def _drop(self, at: int) -> None:
        self._copier.wait(self._there.pop(at))  # what computes may take this memory from here on
        for layer in self._blocks[at]:
            layer.here = None


class Copier:
    """Copies to a device: on a GPU beside what it computes, by a stream of its own; elsewhere at once."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @torch.no_grad()
    def copies(self, groups: Sequence[Sequence[Tensor]]) -> tuple[list[tuple[Tensor, ...]], Any]:
        """The groups of tensors on the device, and what is to be given to `wait` before they are computed with."""
        there = [tuple(torch.empty_like(tensor, device=self._device) for tensor in group) for group in groups]
        if self._stream is None:
            _fill(there, groups)
            return there, None
        # The memory was that of tensors which the other stream may still compute with.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            _fill(there, groups)
        return there, self._stream.record_event()

    def wait(self, copied: Any) -> None:
        """Lets what is computed from here on come after the copies; the CPU goes on."""
        if copied is not None:
            torch.cuda.current_stream(self._device).wait_event(copied)


class HostMemory:
    """Memory of the CPU that a GPU reads by itself while it computes, if it is `pinned`.

    In large slabs: torch rounds each piece of such memory up to a power of two.
    """

    def __init__(self, pinned: bool, slab: int = SLAB):
        self._pinned, self._size = pinned, slab
        self._slab, self._used = torch.empty(0, dtype=torch.uint8), 0

    def at_home(self, tensor: Tensor) -> Tensor:
        """The tensor itself where it lies so already, else a copy."""
        at_home = tensor.device.type == "cpu" and (not self._pinned or tensor.is_pinned())
        return tensor.detach() if at_home else self.copy_of(tensor)

    @torch.no_grad()
    def copy_of(self, tensor: Tensor) -> Tensor:
        if self._used + tensor.nbytes > len(self._slab):
            self._slab, self._used = self._new_slab(max(self._size, tensor.nbytes)), 0
        piece = self._slab[self._used : self._used + tensor.nbytes]
        self._used += math.ceil(tensor.nbytes / ALIGNED) * ALIGNED
        return piece.view(tensor.dtype).view(tensor.shape).copy_(tensor)

    def _new_slab(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        except RuntimeError as error:  # systems limit such memory; copies from other memory are right, too
            LOG.warning("Blocks that wait are copied more slowly, as the system pins no more memory: %s", error)
            self._pinned = False
            return torch.empty(size, dtype=torch.uint8)


def _fill(there: Sequence[Sequence[Tensor]], groups: Sequence[Sequence[Tensor]]) -> None:
    for copies, tensors in zip(there, groups):
        for copy, tensor in zip(copies, tensors):
            copy.copy_(tensor, non_blocking=True)


def _layers(block: nn.Module) -> list[HeldLinear]:
    """The block's frozen Linear layers, which become such that are held."""
    for layer in block.modules():
        if isinstance(layer, nn.Linear) and not isinstance(layer, HeldLinear) and not layer.weight.requires_grad:
            put_into(layer, as_is(layer.weight), layer.weight.dtype)
    return [layer for layer in block.modules() if isinstance(layer, HeldLinear)]

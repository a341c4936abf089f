"""Everything of a run off the GPU and back, bit for bit, while others use it."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from types import CodeType, FrameType, FunctionType, ModuleType

import torch
from torch import Tensor

from lora_trainer.training.memory import MEMORY_ERRORS, is_out_of_memory, release

_NOT_OURS = (type, ModuleType, FrameType, CodeType)  # behind these lies the whole interpreter


class Parked:
    """The tensors that `held` objects hold on a device, moved to the CPU until they are brought back.

    To be made between two steps, when no graph holds others. `freed`: the bytes that the device then has for others.
    """

    def __init__(self, held: Iterable[object], device: torch.device):
        taken = taken_bytes(device)
        self._device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # blocks of the model may be on their way to it
        # "cuda" may be said of what lies on "cuda:0"; a process computes on one device
        self._tensors = [tensor for tensor in tensors_of(held) if tensor.device.type == device.type]
        move(self._tensors, torch.device("cpu"))
        release(device)
        self.freed = max(0, taken - taken_bytes(device))

    def brought_back(self) -> bool:
        """Puts the tensors back. False, and nothing is changed, where others still have the device's memory."""
        try:
            move(self._tensors, self._device)
        except MEMORY_ERRORS as error:
            if not is_out_of_memory(error):
                raise
        else:
            self._tensors = []
            return True
        release(self._device)
        return False


def tensors_of(held: Iterable[object]) -> list[Tensor]:
    """Every tensor that can be reached from these objects: in attributes, containers, closures, as gradients.

    A view keeps the tensor that it was made of, and so the whole of its memory: that one is among them.
    """
    found: list[Tensor] = []
    seen: dict[int, object] = {}
    waiting = list(held)
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or not gc.is_tracked(thing) or isinstance(thing, _NOT_OURS):
            continue
        seen[id(thing)] = thing
        if isinstance(thing, Tensor):
            found.append(thing)
            waiting += [thing._base, thing.grad if thing.is_leaf else None]
        waiting += _inside(thing)
    return found


def _inside(thing: object) -> list[object]:
    """What an object refers to; of a function what it closes over, as its globals are all of a module's."""
    if isinstance(thing, FunctionType):
        return [*(thing.__closure__ or ()), *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    return gc.get_referents(thing)


def move(tensors: Sequence[Tensor], device: torch.device) -> None:
    """Gives the tensors storages on `device`, one for each that they had, so that views of each other stay so."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    moved = {place: copied(_bytes_of(storage), device).untyped_storage() for place, storage in storages.items()}
    for tensor in tensors:
        storage = moved[tensor.untyped_storage().data_ptr()]
        there = torch.empty(0, dtype=tensor.dtype, device=device)
        tensor.data = there.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


def copied(content: Tensor, device: torch.device) -> Tensor:
    """A storage's bytes on another device."""
    return content.to(device)


def _bytes_of(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def taken_bytes(device: torch.device) -> int:
    """What this process keeps of an accelerator's memory, free blocks of its own among it; 0 of a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else 0

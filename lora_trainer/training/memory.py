"""Whether an error says that memory ran short, and where memory can run short at all."""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator

import torch

from lora_trainer.training.allocator import give_back_memory, is_limited

# The classes that such an error may have: torch.OutOfMemoryError and torch.AcceleratorError are RuntimeErrors.
MEMORY_ERRORS = (RuntimeError, MemoryError, OSError)

# torch raises a class of its own for CUDA's, ROCm's and XPU's allocators, under two names and from different versions
# on. All else is a RuntimeError, and only its words tell.
_CLASSES = tuple(
    kind
    for owner in (torch, torch.cuda)
    if isinstance(kind := getattr(owner, "OutOfMemoryError", None), type) and kind is not RuntimeError
)
_WORDS = (
    "out of memory",  # CUDA, ROCm ("HIP out of memory"), XPU, MPS ("MPS backend out of memory")
    "invalid buffer size",  # MPS, of a single tensor
    "can't allocate memory",  # the CPU's allocator on Linux and macOS
    "not enough memory",  # and on Windows
    "cannot allocate memory",  # the system's own words, as mmap gives them
    "_alloc_failed",  # CUBLAS_STATUS_, CUDNN_STATUS_, HIPBLAS_STATUS_, CUSOLVER_STATUS_
    "_device_allocation_failed",  # cuDNN 9
    "_host_allocation_failed",
    "bad_alloc",  # C++ code that torch calls
)
# The whole of what oneDNN says on a CPU when it gets no memory for its code or for what it computes with.
_ONEDNN = ("could not create a primitive", "could not execute a primitive", "could not create a memory object")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether `error`, or one that it was raised from, says that memory ran short, on whatever device."""
    return any(_says_so(each) for each in _chain(error))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, *_CLASSES)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error).lower()
    return isinstance(error, RuntimeError) and (said in _ONEDNN or any(words in said for words in _WORDS))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def release(device: torch.device) -> None:
    """Hands memory that nothing uses any more back to the device, or to the system."""
    gc.collect()
    if device.type == "cpu":
        give_back_memory()
    elif (backend := getattr(torch, device.type, None)) is not None and hasattr(backend, "empty_cache"):
        backend.empty_cache()


def forget_peak(device: torch.device) -> None:
    """What was taken so far does not count in `device.peak_memory` any more, where it can be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def can_refuse(device: torch.device) -> bool:
    """Whether `device` refuses memory when there is too little, so that trying steps beforehand tells something.

    On a CPU it does where this process's memory is limited. Elsewhere the system promises more memory than it has, and
    when that runs short it ends a process.
    """
    return device.type != "cpu" or is_limited()

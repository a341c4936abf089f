"""The tensors of a weights file one by one, each mapped while it is used.

Nothing in a file is executed: pickled checkpoints go through torch's `weights_only`.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path

import torch
from torch import Tensor

from lora_trainer.inspecting.checkpoint import ZIP, leaves
from lora_trainer.inspecting.header import TensorInfo, bad_model, damaged, is_checkpoint, with_code

REOPEN_AFTER = 256 * 2**20  # bytes; pages of a mapped checkpoint that were read count as memory until it is closed
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# How torch says that a pickle names something else than tensors, and what else reading bytes that are none can raise.
_REFUSED = re.compile(r"Unsupported (?:global|class)|Trying to")
UNPICKLING_GARBAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def read_tensors(tensors: Mapping[str, TensorInfo]) -> Iterator[tuple[str, Tensor]]:
    """Each wanted tensor with its key, in the order of the file, on the CPU and in the file's precision.

    Only the tensor at hand takes memory here. BadInput if the file ends too early.
    """
    by_file: dict[Path, dict[str, TensorInfo]] = {}
    for key, info in tensors.items():
        by_file.setdefault(info.file, {})[key] = info
    for file, wanted in by_file.items():
        with file.open("rb") as stream:
            read = _read_checkpoint if is_checkpoint(stream.read(4)) else _read_safetensors
        yield from read(file, wanted)


def _read_safetensors(file: Path, wanted: Mapping[str, TensorInfo]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor lies in a mapping of its own, private to this process, which ends with the tensor."""
    with file.open("rb") as stream:
        for key, info in sorted(wanted.items(), key=lambda item: item[1].start):
            if file.stat().st_size < info.end:
                raise bad_model(file, "ended before its last tensor", "Download it again.")
            yield key, _mapped(stream, info)


def _mapped(stream: BufferedReader, info: TensorInfo) -> Tensor:
    count = math.prod(info.shape)
    if not count:
        return torch.empty(info.shape, dtype=DTYPES[info.dtype])
    begin = info.start - info.start % mmap.ALLOCATIONGRANULARITY
    content = mmap.mmap(stream.fileno(), info.end - begin, access=mmap.ACCESS_COPY, offset=begin)
    # A copy where the place is odd for the type: headers of other writers need not be a multiple of 8 long.
    tensor = torch.frombuffer(content, dtype=torch.uint8, count=info.end - info.start, offset=info.start - begin)
    if info.start % DTYPES[info.dtype].itemsize:
        tensor = tensor.clone()
    return tensor.view(DTYPES[info.dtype]).reshape(info.shape)


def _read_checkpoint(file: Path, wanted: Mapping[str, TensorInfo]) -> Iterator[tuple[str, Tensor]]:
    loaded, unreturned = _load_checkpoint(file), 0
    for key, info in wanted.items():
        if unreturned > REOPEN_AFTER:
            del loaded
            loaded, unreturned = _load_checkpoint(file), 0
        tensor = loaded[info.name].clone()
        unreturned += tensor.nbytes
        yield key, tensor


def _load_checkpoint(file: Path) -> dict[str, Tensor]:
    """All tensors by name; inside a zip they are mapped, not read."""
    with file.open("rb") as stream:
        mapped = stream.read(4) == ZIP
    try:
        loaded = torch.load(str(file), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise with_code(file) if _REFUSED.search(str(error)) else damaged(file) from None
    except UNPICKLING_GARBAGE:
        raise damaged(file) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    return dict(leaves(loaded, Tensor))

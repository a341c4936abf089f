"""What a weights file holds, read without loading it; and its tensors one by one, each mapped while it is used.

Nothing in a file is executed: safetensors holds none, and pickled checkpoints go through torch's `weights_only`.
"""

from __future__ import annotations

import json
import math
import mmap
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_trainer.config.problems import BadInput, Problem

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
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
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
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
_ZIP, _OLD_PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\x0a"
_FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a WebP picture or another RIFF file",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, a few lines of text that stand for the model",
    b"<": "a web page, saved in place of the model",
    b"%PDF": "a PDF document",
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: `dtype` as safetensors writes it ("F16"), and its bytes `start` to `end` in the file.

    In a pickled checkpoint both are 0, and the tensor is found by its name alone.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Header:
    """A file's tensors by name, and its metadata (a checkpoint has none)."""

    file: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)


def bad_model(file: Path, problem: str, remedy: str, setting: str = "base_model") -> BadInput:
    """BadInput about a model file; only its name is shown, never the whole path."""
    return BadInput(Problem(setting, file.name, problem, remedy))


def read_header(file: Path) -> Header:
    """The header of a `.safetensors` or `.ckpt` file, told apart by content. BadInput if neither, or damaged."""
    try:
        if not file.is_file():
            raise bad_model(file, "there is no such file", "Choose a file that exists.")
        with file.open("rb") as stream:
            first = stream.read(64)
    except OSError as error:
        raise _unopened(file, error) from error
    if not first:
        raise bad_model(file, "is empty", "Download it again.")
    if is_checkpoint(first) and file.suffix.lower() == ".safetensors":  # torch.load goes by this name, not by content
        raise bad_model(file, "is a pickled checkpoint and no safetensors file", "Give it the name ending .ckpt.")
    if is_checkpoint(first):
        return _checkpoint_header(file)
    if first[8:9] == b"{":  # behind the header's length, which may be any bytes
        return _safetensors_header(file)
    what = next((what for start, what in _FOREIGN.items() if first.lstrip().startswith(start)), None)
    problem = f"is not a model but {what}" if what else "is not a model file"
    raise bad_model(file, problem, "Choose a .safetensors or .ckpt file.")


def is_folder(path: Path) -> bool:
    """Whether a model's path is that of a folder. BadInput where it can't even be looked at."""
    try:
        return path.is_dir()
    except OSError as error:
        raise _unopened(path, error) from error


def is_checkpoint(first: bytes) -> bool:
    """Whether a file that begins so was written by `torch.save`."""
    return first.startswith((_ZIP, _OLD_PICKLE))


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


def _safetensors_header(file: Path) -> Header:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise _damaged(file)
        if length > size - 8:
            raise _cut_off(file, size, None)
        content = stream.read(length)
    try:
        table = json.loads(content.decode("utf-8"))
        metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
        tensors = {name: _tensor_info(file, name, entry, 8 + length) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise _damaged(file) from None
    _check_places(file, tensors, 8 + length, size)
    return Header(file, tensors, metadata)


def _tensor_info(file: Path, name: str, entry: dict[str, Any], data: int) -> TensorInfo:
    """`data`: where the tensors begin in the file. ValueError, TypeError or KeyError for an entry without sense."""
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, start, end)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(name)
    if end - start != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(name)
    return TensorInfo(file, name, dtype, shape, data + start, data + end)


def _check_places(file: Path, tensors: Mapping[str, TensorInfo], data: int, size: int) -> None:
    """The tensors must lie one behind the other, without gap or overlap, up to the end of the file."""
    place = data
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != place:
            raise _damaged(file)
        place = info.end
    if place > size:
        raise _cut_off(file, size, place)
    if place < size:
        raise _damaged(file)


def _checkpoint_header(file: Path) -> Header:
    tensors = {
        name: TensorInfo(file, name, _DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in _load_checkpoint(file).items()
    }
    return Header(file, tensors)


def _load_checkpoint(file: Path) -> dict[str, Tensor]:
    """All tensors by name; inside a zip they are mapped, not read."""
    with file.open("rb") as stream:
        mapped = stream.read(4) == _ZIP
    try:
        loaded = torch.load(str(file), map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise _with_code(file) if _REFUSED.search(str(error)) else _damaged(file) from None
    except UNPICKLING_GARBAGE:
        raise _damaged(file) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    return dict(_flattened(loaded, ""))


def _flattened(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))


def _with_code(file: Path) -> BadInput:
    return bad_model(
        file,
        "holds program code beside its weights, which is never run",
        "Choose the .safetensors edition of this model.",
    )


def _cut_off(file: Path, size: int, whole: int | None) -> BadInput:
    there = f"{_megabytes(size)} of {_megabytes(whole)} are there" if whole else f"only {_megabytes(size)} are there"
    return bad_model(file, f"is cut off: {there}", "Download it again.")


def _unopened(file: Path, error: OSError) -> BadInput:
    return bad_model(file, f"can't be opened ({error.strerror})", "Check its path and the rights to it.")


def _damaged(file: Path) -> BadInput:
    return bad_model(file, "is damaged, or is not a model file", "Download it again.")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

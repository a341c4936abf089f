"""What a weights file holds, read without loading it, and without executing anything in it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.inspecting.checkpoint import GARBAGE, OLD_PICKLE, ZIP, ProgramCode, read_checkpoint

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
BYTES: Mapping[str, int] = {  # of one number, by its type's name in safetensors
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
_FORMATS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<f"}  # bfloat16: the upper half of a float32
_FOREIGN = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a WebP picture or another RIFF file",
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
    if first.startswith(b"GGUF"):
        raise bad_model(file, "is a GGUF file, which can't be read yet", "Choose the edition in .safetensors format.")
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
    return first.startswith((ZIP, OLD_PICKLE))


def read_scalars(tensors: Iterable[TensorInfo]) -> list[float]:
    """The values of tensors without axes in floating point; those of a pickled checkpoint are left out."""
    values = []
    for info in tensors:
        if info.dtype in _FORMATS and info.end and not info.shape:
            with info.file.open("rb") as stream:
                stream.seek(info.start)
                content = stream.read(info.end - info.start)
            form = _FORMATS[info.dtype]
            values.append(struct.unpack(form, content.rjust(struct.calcsize(form), b"\0"))[0])
    return values


def _safetensors_header(file: Path) -> Header:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise damaged(file)
        if length > size - 8:
            raise _cut_off(file, size, None)
        content = stream.read(length)
    try:
        table = json.loads(content.decode("utf-8"))
        metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
        tensors = {name: _tensor_info(file, name, entry, 8 + length) for name, entry in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise damaged(file) from None
    _check_places(file, tensors, 8 + length, size)
    return Header(file, tensors, metadata)


def _tensor_info(file: Path, name: str, entry: dict[str, Any], data: int) -> TensorInfo:
    """`data`: where the tensors begin in the file. ValueError, TypeError or KeyError for an entry without sense."""
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    numbers = (*shape, start, end)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(name)
    if end - start != math.prod(shape) * BYTES[dtype]:
        raise ValueError(name)
    return TensorInfo(file, name, dtype, shape, data + start, data + end)


def _check_places(file: Path, tensors: Mapping[str, TensorInfo], data: int, size: int) -> None:
    """The tensors must lie one behind the other, without gap or overlap, up to the end of the file."""
    place = data
    for info in sorted(tensors.values(), key=lambda info: (info.start, info.end)):
        if info.start != place:
            raise damaged(file)
        place = info.end
    if place > size:
        raise _cut_off(file, size, place)
    if place < size:
        raise damaged(file)


def _checkpoint_header(file: Path) -> Header:
    try:
        tensors = read_checkpoint(file)
    except ProgramCode:
        raise with_code(file) from None
    except GARBAGE:
        raise damaged(file) from None
    return Header(file, {name: TensorInfo(file, name, each.dtype, each.shape) for name, each in tensors.items()})


def with_code(file: Path) -> BadInput:
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


def damaged(file: Path) -> BadInput:
    return bad_model(file, "is damaged, or is not a model file", "Download it again.")


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"

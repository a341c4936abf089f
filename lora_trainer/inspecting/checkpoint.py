"""The table of tensors in a checkpoint that `torch.save` wrote, without torch, and without unpickling it.

A pickle is a program. `pickletools` names its instructions; those that build tables are followed here on plain values,
nothing that they name is ever imported or called, and one that is about something else than tensors ends the reading.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

LONGEST_TABLE = 100_000_000  # bytes of pickle inside a zip
ZIP, OLD_PICKLE = b"PK\x03\x04", b"\x80\x02\x8a\x0a"
# What following bytes that are no checkpoint can raise.
GARBAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
# Types as safetensors writes them, by the storages and the dtypes that torch names.
_TYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_HARMLESS = re.compile(
    r"torch \w+|torch\.(?:_utils|_tensor|storage|serialization|nn\.parameter) \w+"
    r"|collections (?:OrderedDict|Counter|defaultdict)|_codecs encode"
    r"|(?:__builtin__|builtins) (?:set|frozenset|bytes|bytearray|int|float|complex)"
)

Value = TypeVar("Value")


class ProgramCode(Exception):
    """A pickle names something that is about neither tensors nor plain tables."""


@dataclass(frozen=True)
class PickledTensor:
    """`dtype` as safetensors writes it, or torch's own name for one that safetensors has not."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Named:
    """Something that a pickle names: its module and its own name, with a space between."""

    name: str

    @property
    def dtype(self) -> str:
        own = self.name.rpartition(" ")[2]
        return _TYPES.get(own, own)


def read_checkpoint(file: Path) -> dict[str, PickledTensor]:
    """All tensors by name; those of an inner `state_dict` where there is one. ProgramCode, or one of GARBAGE."""
    with file.open("rb") as stream:
        if stream.read(4) == ZIP:
            table = _followed(io.BytesIO(_zipped_table(stream)))
        else:
            stream.seek(0)
            for _ in range(3):  # a magic number, the protocol's number, facts of the system
                _followed(stream)
            table = _followed(stream)
    if isinstance(table, dict) and isinstance(table.get("state_dict"), dict):
        table = table["state_dict"]
    return dict(leaves(table, PickledTensor))


def leaves(value: object, kind: type[Value], name: str = "") -> Iterator[tuple[str, Value]]:
    """The values of one kind in nested tables and lists, each with the names on the way to it, joined by dots."""
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, kind, f"{name}.{key}" if name else str(key))


def _zipped_table(stream: IO[bytes]) -> bytes:
    with zipfile.ZipFile(stream) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
        if entry.file_size > LONGEST_TABLE:
            raise ValueError("the table of tensors is longer than any real one")
        return archive.read(entry)


def _followed(stream: IO[bytes]) -> Any:
    """What a pickle would build, with a PickledTensor for each tensor and None for what else is made by calls."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in _IGNORED:
            continue
        if name.endswith(("BINPUT", "MEMOIZE")):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name.endswith("BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name in _STEPS:
            _STEPS[name](stack)
        elif name.startswith(_PLAIN):
            stack.append(argument)
        else:
            raise ProgramCode(name)
    return stack.pop()


def _named(name: str) -> _Named:
    if not _HARMLESS.fullmatch(name):
        raise ProgramCode(name)
    return _Named(name)


def _called(function: _Named, arguments: tuple[Any, ...]) -> Any:
    name = function.name.rpartition(" ")[2]
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        told = arguments[6] if name.endswith("v3") else arguments[0]
        return PickledTensor(told.dtype, tuple(arguments[2]))
    if name.startswith("_rebuild_parameter"):
        return arguments[0]
    if name in ("OrderedDict", "Counter"):
        return dict(*arguments)
    return None


class _Mark:
    """Where, on the stack, the items of the next table or tuple begin."""


def _marked(stack: list[Any]) -> list[Any]:
    place = next(i for i in range(len(stack) - 1, -1, -1) if isinstance(stack[i], _Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _last(stack: list[Any], count: int) -> list[Any]:
    items = stack[len(stack) - count :] if len(stack) >= count else []
    del stack[len(stack) - count :]
    return items


def _extend(stack: list[Any], items: list[Any]) -> None:
    if isinstance(stack[-1], list):
        stack[-1].extend(items)


def _set(stack: list[Any], items: list[Any]) -> None:
    if isinstance(stack[-1], dict):
        stack[-1].update(zip(items[::2], items[1::2]))


def _storage(saved: tuple[Any, ...]) -> _Named:
    """From `("storage", its type, key, location, count)`, as torch refers to the numbers of a tensor."""
    if saved[0] != "storage":
        raise ProgramCode(str(saved[0]))
    return saved[1]


_IGNORED = {"PROTO", "FRAME", "STOP"}
_PLAIN = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "LONG", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
          "SHORT_BINBYTES")  # fmt: skip
_STEPS: dict[str, Callable[[list[Any]], object]] = {
    "MARK": lambda stack: stack.append(_Mark()),
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "EMPTY_SET": lambda stack: stack.append([]),
    "TUPLE": lambda stack: stack.append(tuple(_marked(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_last(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_last(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_last(stack, 3))),
    "APPEND": lambda stack: _extend(stack, _last(stack, 1)),
    "APPENDS": lambda stack: _extend(stack, _marked(stack)),
    "ADDITEMS": lambda stack: _extend(stack, _marked(stack)),
    "SETITEM": lambda stack: _set(stack, _last(stack, 2)),
    "SETITEMS": lambda stack: _set(stack, _marked(stack)),
    "STACK_GLOBAL": lambda stack: stack.append(_named(" ".join(_last(stack, 2)))),
    "BINPERSID": lambda stack: stack.append(_storage(stack.pop())),
    "REDUCE": lambda stack: stack.append(_called(*_last(stack, 2))),
    "NEWOBJ": lambda stack: stack.append(_called(*_last(stack, 2))),
    "BUILD": lambda stack: _last(stack, 1),
}

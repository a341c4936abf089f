"""What is known about one setting, and the field maker that attaches it to a dataclass."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

NONE = type(None)


@dataclass(frozen=True)
class Applies:
    """When a setting means something: a sentence for the user, and a test of the whole config."""

    sentence: str
    test: Callable[[Any], bool]


@dataclass(frozen=True)
class Setting:
    """Everything about one setting; widgets, checks, TOML, flags, schema and documentation are made from it.

    Bounds hold for every number in the value, so that a size or a list needs no bounds of its own kind.
    """

    panel: str
    default: Any
    label: str
    help: str
    name: str = ""  # filled in, with the two below, from the dataclass that has the field
    types: tuple[Any, ...] = ()  # what a value may be: bool, int, float, str, a tuple of these, or Subset
    optional: bool = False  # None stands for: empty, the family's own, or automatic
    required: bool = False  # must not be empty
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    above: float | None = None  # like minimum, the bound itself excluded
    maximum: float | None = None
    below: float | None = None  # like maximum, the bound itself excluded
    multiple_of: int | None = None
    slider_step: float | None = None  # of a number with a fraction; without it, it is typed
    unit: str = ""
    path: bool = False  # a file or folder of the user's machine
    seaart: str = ""  # the Japanese label
    kohya: tuple[str, ...] = ()  # the arguments of sd-scripts; network_args.X stands for X=... in network_args
    metadata: str = ""  # the key under which sd-scripts records the value in a LoRA file
    family_defaults: Mapping[str, Any] = field(default_factory=dict)  # what None becomes, by family
    derived: Callable[[Any], Any] | None = None  # what None becomes, from the other settings
    applies: Applies | None = None

    @property
    def type(self) -> Any:
        """The usual type of a value, None and other accepted forms aside."""
        return self.types[0]


def setting(panel: str, default: Any, label: str, help: str, *, kohya: str = "", **facts: Any) -> Any:
    """A dataclass field that carries its ``Setting``; ``kohya`` may name several arguments, separated by spaces."""
    known = Setting(panel, default, label, help, kohya=tuple(kohya.split()), **facts)
    return field(default=default, metadata={"setting": known})


def settings_of(table: type) -> dict[str, Setting]:
    """The settings of a dataclass by name, in the order in which it defines them."""
    hints = get_type_hints(table)
    return {
        row.name: replace(
            row.metadata["setting"],
            name=row.name,
            types=tuple(kind for kind in alternatives(hints[row.name]) if kind is not NONE),
            optional=NONE in alternatives(hints[row.name]),
        )
        for row in fields(table)
    }


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)

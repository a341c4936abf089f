"""What others read of the settings: a JSON Schema for programs, a Markdown table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args, get_origin

from lora_trainer.config.conversion import plain
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import PANELS, SETTINGS, SUBSET_SETTINGS, Subset
from lora_trainer.config.values import described

JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what ``from_dict`` takes and ``as_dict`` gives."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Config", **_object(SETTINGS)}


def settings_table() -> str:
    """Every setting as Markdown: a heading and a table for each panel."""
    return "\n\n".join(_panel_table(panel, title) for panel, title in PANELS.items()) + "\n"


def _object(rows: Mapping[str, Setting]) -> dict[str, Any]:
    required = [name for name, row in rows.items() if row.required]
    properties = {name: _property(row) for name, row in rows.items()}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _property(row: Setting) -> dict[str, Any]:
    kinds = [_kind(kind, row) for kind in row.types] + [{"type": "null"}] * row.optional
    facts = {"title": row.label, "description": row.help, "default": plain(row.default), "x-panel": row.panel}
    extras = {"x-unit": row.unit, "x-path": row.path, "x-seaart": row.seaart, "x-kohya": list(row.kohya)}
    extras |= {"x-family-defaults": {family: plain(value) for family, value in row.family_defaults.items()}}
    extras |= {"x-applies": row.applies.sentence if row.applies else ""}
    return {**facts, **{key: value for key, value in extras.items() if value}, **_any_of(kinds)}


def _any_of(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _kind(kind: Any, row: Setting) -> dict[str, Any]:
    """One type with the setting's bounds, which hold for each number of a list."""
    if get_origin(kind) is tuple:
        first, second = get_args(kind)
        length = {} if second is Ellipsis else {"minItems": 2, "maxItems": 2}
        return {"type": "array", "items": _object(SUBSET_SETTINGS) if first is Subset else _kind(first, row), **length}
    if row.choices:
        return {"enum": list(row.choices)}
    bounds = {
        "minimum": row.minimum,
        "exclusiveMinimum": row.above,
        "maximum": row.maximum,
        "exclusiveMaximum": row.below,
        "multipleOf": row.multiple_of,
    }
    numeric = {key: bound for key, bound in bounds.items() if bound is not None and kind in (int, float)}
    return {"type": JSON_TYPES[kind], **numeric, **({"minLength": 1} if row.required else {})}


def _panel_table(panel: str, title: str) -> str:
    head = f"## {title}\n\n| setting | takes | default | what it does | sd-scripts |\n|---|---|---|---|---|"
    return "\n".join([head, *(_table_row(row) for row in SETTINGS.values() if row.panel == panel)])


def _table_row(row: Setting) -> str:
    unit = f" ({row.unit})" if row.unit else ""
    applies = f" {row.applies.sentence}" if row.applies else ""
    kohya = ", ".join(f"`{name}`" for name in row.kohya)
    cells = (f"`{row.name}`", described(row) + unit, _default(row), f"**{row.label}.** {row.help}{applies}", kohya)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _default(row: Setting) -> str:
    if row.family_defaults:
        return ", ".join(f"{family} `{_shown(value)}`" for family, value in row.family_defaults.items())
    return "empty" if row.default in (None, "", ()) else f"`{_shown(row.default)}`"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)

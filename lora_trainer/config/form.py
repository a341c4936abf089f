"""A config as the values of a form's widgets, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from lora_trainer.config.conversion import as_dict, read_table, settle
from lora_trainer.config.presets import PRESETS
from lora_trainer.config.problems import Problem
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import SETTINGS, Config
from lora_trainer.config.values import described, parse

Kind = Literal["switch", "choice", "choices", "slider", "text", "lines"]

AUTOMATIC = "automatic"  # the word in a list of choices for None
LONGEST_SLIDER = 1024  # steps: with more, a place on it is hard to hit


def kind(row: Setting) -> Kind:
    """The widget that suits a setting. A slider's number is never empty, so that what may be None has none."""
    if get_origin(row.type) is tuple and get_args(row.type)[0] is str:
        return "choices" if row.choices else "lines"
    if row.choices or bool in row.types:
        return "choice" if row.choices or row.optional else "switch"
    return "slider" if slider(row) else "text"


def choices(row: Setting) -> list[str]:
    """The words to choose from."""
    words = [str(choice) for choice in row.choices] or ["on", "off"]
    return [AUTOMATIC, *words] if row.optional else words


def slider(row: Setting) -> tuple[float, float, float] | None:
    """The least and the greatest value, and the step between two, of a setting that a slider suits."""
    step = (row.multiple_of or 1) if row.type is int else row.slider_step
    if row.optional or step is None or row.minimum is None or row.maximum is None:
        return None
    fine = (row.maximum - row.minimum) / step > LONGEST_SLIDER
    return None if fine else (row.minimum, row.maximum, step)


def from_form(values: Mapping[str, Any]) -> Config:
    """The config of a form: a value for each widget by its setting, those that are missing at their default.

    Besides, `subsets` may be given as `as_dict` has them. Raises BadInput with everything that is wrong with it.
    """
    table: dict[str, Any] = {}
    faults: list[Problem] = []
    for name, value in values.items():
        row = SETTINGS.get(name)
        if row and name != "subsets" and _is_empty(value, row):
            faults.append(Problem(name, value, "is empty", f"Use {described(row)}."))
        else:
            table[name] = _read(value, row) if row and name != "subsets" else value
    read, wrong = read_table(table)
    return settle(Config(), read, [*faults, *wrong])


def as_form(config: Config) -> dict[str, Any]:
    """The value of each setting's widget; `subsets` as `as_dict` has them."""
    shown = {name: shown_value(row, getattr(config, name)) for name, row in SETTINGS.items() if name != "subsets"}
    return {**shown, "subsets": as_dict(config)["subsets"]}


def preset_form(name: str) -> dict[str, Any]:
    """The values of the widgets that a preset sets. KeyError if there is no such preset."""
    return {setting: shown_value(SETTINGS[setting], value) for setting, value in PRESETS[name].values.items()}


def shown_value(row: Setting, value: Any) -> Any:
    """A setting's value as its widget holds it: a truth value, a number, a list of words, or text."""
    what = kind(row)
    if what == "choice":
        return AUTOMATIC if value is None else _word(value)
    if what == "choices":
        return list(value)
    if what == "lines":
        return "\n".join(value)
    return value if what in ("switch", "slider") else _text(value)


def _read(value: Any, row: Setting) -> Any:
    what = kind(row)
    if what == "lines" and isinstance(value, str):
        return [line.strip() for line in value.splitlines() if line.strip()]
    if not isinstance(value, str):
        return value
    if what == "choice" and value == AUTOMATIC and row.optional:
        return None
    return value if row.type is str and value.strip() and not row.optional else parse(value, row)


def _is_empty(value: Any, row: Setting) -> bool:
    """Whether a number was taken out of a widget that must hold one."""
    wants_number = row.type in (int, float) and not row.optional
    return wants_number and (value is None or isinstance(value, str) and not value.strip())


def _word(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        whole = len(value) == 2 and all(isinstance(number, int) for number in value)
        return "x".join(map(str, value)) if whole else ", ".join(map(_text, value))
    return repr(value).replace("e-0", "e-") if isinstance(value, float) else str(value)

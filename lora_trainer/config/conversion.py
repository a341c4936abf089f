"""A config as a plain dictionary and back: what TOML, the JSON API and a LoRA's metadata hold."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PureWindowsPath
from typing import Any

from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.settings import RATE_FREE_OPTIMIZERS, SETTINGS, SUBSET_SETTINGS, Config, Subset
from lora_trainer.config.validation import problems
from lora_trainer.config.values import convert, described, named, parse


def as_dict(config: Config | Subset, whole_paths: bool = True) -> dict[str, Any]:
    """Every setting that is not None, with lists for tuples and dictionaries for subsets.

    With ``whole_paths`` False only the last part of each path is given, so that nothing personal is published.
    """
    rows = SETTINGS if isinstance(config, Config) else SUBSET_SETTINGS
    values = {name: plain(getattr(config, name), whole_paths) for name in rows}
    if not whole_paths:
        values |= {name: PureWindowsPath(values[name]).name for name, row in rows.items() if row.path and values[name]}
    return {name: value for name, value in values.items() if value is not None}


def plain(value: Any, whole_paths: bool = True) -> Any:
    """A setting's value with lists for tuples and dictionaries for subsets."""
    if isinstance(value, tuple):
        return [plain(item, whole_paths) for item in value]
    return as_dict(value, whole_paths) if isinstance(value, Subset) else value


def from_dict(values: Mapping[str, Any]) -> Config:
    """The config with these values; what is left out has its default. The opposite of ``as_dict``.

    Raises BadInput if a key is unknown or a value is of the wrong type, and then names everything else that is wrong
    with the config too. Bounds alone do not stop it: ``check`` does that, once the config is complete.
    """
    return settle(Config(), *read_table(values))


def with_values(config: Config, changes: Sequence[str]) -> Config:
    """``config`` changed by texts such as ``rank=16``; see ``from_dict`` for what is refused."""
    return settle(config, *read_changes(changes))


def read_table(table: Mapping[str, Any], where: str = "") -> tuple[dict[str, Any], list[Problem]]:
    """The values of a plain dictionary in the settings' types, and what cannot be read.

    ``where`` is empty for a whole config, or "subsets.N." for the subset of that number.
    """
    rows = SUBSET_SETTINGS if where else SETTINGS
    values: dict[str, Any] = {}
    faults: list[Problem] = []
    for key, value in table.items():
        if key not in rows:
            faults.append(_unknown(where + key, value))
        elif key == "subsets":
            values[key], wrong = _read_subsets(value)
            faults += wrong
        elif value is None and rows[key].optional:
            values[key] = None
        else:
            try:
                values[key] = convert(value, rows[key])
            except ValueError as error:
                faults.append(Problem(where + key, value, str(error), f"Use {described(rows[key])}."))
    return values, faults


def read_changes(changes: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """The values of texts such as ``rank=16``, and what cannot be read."""
    table: dict[str, Any] = {}
    faults: list[Problem] = []
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip()
        if equals:
            table[name] = parse(text, SETTINGS[name]) if name in SETTINGS else text
        else:
            faults.append(Problem(name, None, "has no value", "Write it as name=value, such as rank=16."))
    values, wrong = read_table(table)
    return values, faults + wrong


def settle(config: Config, values: Mapping[str, Any], faults: Sequence[Problem]) -> Config:
    """``config`` with the values read; raises BadInput with ``faults`` and all other problems if there are faults.

    An optimizer that finds its own rate gets the learning rate 1, which it needs, unless another one was chosen.
    """
    values = dict(values)
    if values.get("optimizer") in RATE_FREE_OPTIMIZERS and config.learning_rate == Config.learning_rate:
        values.setdefault("learning_rate", 1.0)
    config = replace(config, **values)
    if faults:
        meant = {nearest(problem.setting) for problem in faults} - set(values)
        raise BadInput([*faults, *problems(config, skip=meant)])
    return config


def nearest(name: str) -> str:
    """The setting that an unknown name was most likely meant for; empty if none is like it."""
    where, _, key = name.rpartition(".")
    rows = SUBSET_SETTINGS if where else SETTINGS
    meant = [row.name for row in rows.values() if key in (row.name, *row.kohya)]
    meant = meant or difflib.get_close_matches(key.lower(), rows, n=1)
    return f"{where}.{meant[0]}".lstrip(".") if meant else ""


def _unknown(name: str, value: Any) -> Problem:
    meant = nearest(name).rpartition(".")[2]
    return Problem(name, value, "is not a setting", f'Did you mean "{meant}"?' if meant else "Remove it.")


def _read_subsets(value: Any) -> tuple[tuple[Subset, ...], list[Problem]]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, Mapping) for item in value):
        remedy = 'Begin each folder with a line [[dataset.subsets]] and put folder = "..." below it.'
        return (), [Problem("subsets", value, f"must be a list of tables, not {named(value)}", remedy)]
    subsets: list[Subset] = []
    faults: list[Problem] = []
    for number, table in enumerate(value, 1):
        values, wrong = read_table(table, f"subsets.{number}.")
        subsets.append(Subset(**values))
        faults += wrong
    return tuple(subsets), faults

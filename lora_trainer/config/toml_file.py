"""A config as TOML text: one section for each panel, a table for each folder of pictures."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_trainer.config.conversion import as_dict, read_changes, read_table, settle
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.settings import PANELS, SETTINGS, Config

DEFAULTS = Config()
ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)")


def load_toml(source: str | Path, changes: Sequence[str] = (), start: Config = DEFAULTS) -> Config:
    """The config in a TOML text, or in the file at a Path, changed by texts such as ``rank=16``.

    What the source leaves out is as in ``start``.

    Sections are for the eye only: a known setting is found wherever it stands. Raises BadInput as ``from_dict`` does,
    and for a file or text that cannot be read.
    """
    text = read_text(source) if isinstance(source, Path) else source
    table, twice = _flat(parse_toml(text))
    values, faults = read_table(table)
    changed, wrong = read_changes(changes)
    return settle(start, {**values, **changed}, [*twice, *faults, *wrong])


def dump_toml(config: Config) -> str:
    """Every setting that is not None as TOML; ``load_toml`` gives the same config back."""
    values = as_dict(config)
    subsets = values.pop("subsets")
    sections = []
    for panel in PANELS:
        rows = {name: value for name, value in values.items() if SETTINGS[name].panel == panel}
        sections.append("\n".join([f"[{panel}]", *_lines(rows)]))
        if panel == SETTINGS["subsets"].panel:
            sections += ["\n".join(["[[dataset.subsets]]", *_lines(part)]) for part in subsets]
    return "\n\n".join(sections) + "\n"


def read_text(path: Path) -> str:
    """A text file in UTF-8 or UTF-16, with or without a byte order mark; raises BadInput if it cannot be read."""
    try:
        data = path.read_bytes()
        return data.decode(ENCODINGS.get(data[:2], "utf-8-sig"))
    except FileNotFoundError:
        problem = Problem("config", path.name, "there is no such file", "Check the path.")
    except OSError as error:
        problem = Problem("config", path.name, f"cannot be read ({error.strerror})", "Check the file.")
    except UnicodeDecodeError:
        problem = Problem("config", path.name, "is not text in UTF-8", "Save it as UTF-8 in a text editor.")
    raise BadInput(problem)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; raises BadInput with the place of the first mistake."""
    # Imported here so that the settings themselves need nothing but Python 3.10.
    if sys.version_info >= (3, 11):
        from tomllib import loads
    else:  # the same code under its first name; the package toml misreads quotes and brackets within text
        from tomli import loads
    try:
        return dict(loads(text.lstrip("\ufeff")))
    except ValueError as error:
        place = PLACE.search(str(error))
        last = text.split("\n")
        line, column = place.groups() if place and place[1] else (len(last), len(last[-1]) + 1)
        problem = f"line {line}, column {column} is not TOML ({PLACE.sub('', str(error))})"
        remedy = "Put text in quotes, and Windows paths in single quotes."
        raise BadInput(Problem("config", None, problem, remedy)) from error


def _flat(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The settings of all sections in one dictionary, and a problem for each that stands in two of them."""
    table: dict[str, Any] = {}
    twice: list[Problem] = []
    for key, value in _settings(document):
        if key in table:
            twice.append(Problem(key, value, "is given twice", f"Keep one of the two (here it is {table[key]!r} too)."))
        table.setdefault(key, value)
    return table, twice


def _settings(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        section = isinstance(value, dict) and key not in SETTINGS
        yield from value.items() if section else [(key, value)]


def dump_table(rows: Mapping[str, Any]) -> str:
    """Names and plain values as lines of TOML."""
    return "".join(f"{line}\n" for line in _lines(rows))


def _lines(rows: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_written(value)}" for name, value in rows.items()]


def _written(value: Any) -> str:
    """A value in TOML: JSON's form, except that infinities and NaN are spelt otherwise and DEL is escaped."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

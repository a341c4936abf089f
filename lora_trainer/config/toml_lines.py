"""On which line of a TOML text each setting stands, so that what is wrong with it can be shown there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lora_trainer.config.problems import BadInput
from lora_trainer.config.toml_file import parse_toml

LONGEST_STATEMENT = 500  # lines of one value; behind a longer one, no line is told


def lines_of(text: str) -> dict[str, int]:
    """The lines, counted from 1, by the names that problems have: `rank`, `subsets.2`, `subsets.2.folder`.

    The text must be TOML. What stands there twice is found where it stands last.
    """
    lines: dict[str, int] = {}
    inside, subsets = "", 0
    for number, is_header, statement in _statements(text):
        path = _path(statement)
        if not is_header:
            lines |= {inside + key: number for key in statement}
        elif path[-1] == "subsets":
            subsets += 1
            inside = f"subsets.{subsets}."
            lines |= {"subsets": lines.get("subsets", number), inside[:-1]: number}
        else:
            inside = ""
            lines.setdefault(path[min(1, len(path) - 1)], number)
    return lines


def line_of(setting: str, lines: Mapping[str, int]) -> int | None:
    """The line of a problem's setting, or of the table that it is missing in; None where there is neither."""
    while setting:
        if setting in lines:
            return lines[setting]
        setting = setting.rpartition(".")[0]
    return None


def _statements(text: str) -> Iterator[tuple[int, bool, dict[str, Any]]]:
    """Each value, and each table's header, with its first line: as few lines as are TOML by themselves."""
    begun: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        begun.append(line)
        if len(begun) > LONGEST_STATEMENT:
            return
        try:
            statement = parse_toml("\n".join([*begun, ""]))
        except BadInput:
            continue
        if statement:
            yield number - len(begun) + 1, begun[0].lstrip().startswith("["), statement
        begun = []


def _path(header: Mapping[str, Any]) -> list[str]:
    """The names in a table's header, from the tables that it makes."""
    path: list[str] = []
    inner: Any = header
    while isinstance(inner, Mapping) and inner:
        name, inner = next(iter(inner.items()))
        path.append(name)
    return path

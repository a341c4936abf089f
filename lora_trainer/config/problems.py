"""What is wrong with something the user gave, and the exception that carries it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_SHOWN = 80


@dataclass(frozen=True)
class Problem:
    """One thing to put right: which setting (or file), the value found, what is wrong with it, and what to do.

    ``problem`` is the end of a sentence without its full stop; ``remedy`` is a whole sentence. A ``value`` of None
    is not shown.
    """

    setting: str
    value: object
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = self.setting if self.value is None else f"{self.setting} = {shown(self.value)}"
        return f"{where}: {self.problem}. {self.remedy}".rstrip()


def shown(value: object) -> str:
    """A value as a user would write it, on one line and no longer than ``LONGEST_SHOWN`` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"


class BadInput(Exception):
    """The user gave something that cannot be used; ``problems`` says everything that is wrong with it at once."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

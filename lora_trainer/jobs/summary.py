"""What a worker's events say of its job as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]

# By the event's kind: the job's columns that it changes.
_TOLD: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "started": lambda facts: {"status": "running", **_known(facts, "step", "steps", "epochs")},
    "progress": lambda facts: _known(facts, "step", "steps", "epoch", "epochs", loss="average"),
    "paused": lambda facts: {"status": "paused"},
    "resumed": lambda facts: {"status": "running"},
    "stopped": lambda facts: _known(facts, "step", "steps"),
    "failed": lambda facts: _known(facts, "reason", "cause", "remedy"),
    "finished": lambda facts: _known(facts, "lora", "loss"),
}


def columns(kind: str, facts: Facts) -> dict[str, Any]:
    """The fields of `Job` that an event changes, with their values; {} where it changes none.

    How the job ended is not among them: the supervisor decides it.
    """
    return _TOLD[kind](facts) if kind in _TOLD else {}


def _known(facts: Facts, *names: str, **named: str) -> dict[str, Any]:
    wanted = {**{name: name for name in names}, **named}
    return {column: facts[name] for column, name in wanted.items() if facts.get(name) is not None}

"""Several trainings that differ in one or two settings, to be looked at side by side."""

from __future__ import annotations

import itertools
import json
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_trainer.config import SETTINGS, BadInput, Config, Problem
from lora_trainer.config.conversion import settle
from lora_trainer.config.form import AUTOMATIC, kind, shown_value
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import RATE_FREE_OPTIMIZERS
from lora_trainer.config.values import convert, described, fault, parse
from lora_trainer.files import write_text
from lora_trainer.jobs.job import WrongState
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

MOST_JOBS, MOST_AXES = 36, 2
PANELS = ("learning", "network", "training", "noise", "dataset", "model")  # what a setting may be of
NOT_COMPARED = ("dataset_name", "subsets")
COMPARABLE = [
    row.name for panel in PANELS for row in SETTINGS.values() if row.panel == panel and row.name not in NOT_COMPARED
]
FOLDER = "comparisons"
REMEDY = "Choose one or two settings, each with its values."
_UNFIT = re.compile(r"[^\w.+=-]+")


@dataclass(frozen=True)
class Axis:
    """A setting and the values that it is given in turn, as text."""

    setting: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One of the trainings: its value on each axis, and its job."""

    values: tuple[str, ...]
    job: int


@dataclass(frozen=True)
class Comparison:
    """`created_at`: in seconds since 1970."""

    id: int
    name: str
    created_at: float
    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]


def read_axes(given: Sequence[Any]) -> tuple[Axis, ...]:
    """The axes of a list of {"setting": name, "values": [...]}. BadInput with everything that is wrong with them."""
    if not all(isinstance(axis, Mapping) for axis in given) or not 0 < len(given) <= MOST_AXES:
        raise BadInput(Problem("axes", None, f"must be a list of 1 or {MOST_AXES} settings with values", REMEDY))
    faults: list[Problem] = []
    axes = tuple(_axis(axis, faults) for axis in given)
    if len({axis.setting for axis in axes}) < len(axes):
        faults.append(Problem("axes", None, "has the same setting twice", "Choose another one."))
    if (count := math.prod(len(axis.values) for axis in axes)) > MOST_JOBS:
        faults.append(Problem("axes", count, f"make more than {MOST_JOBS} trainings", "Choose fewer values."))
    if faults:
        raise BadInput(faults)
    return axes


def works(work: Work, axes: Sequence[Axis]) -> list[tuple[tuple[str, ...], Work]]:
    """The trainings that `work` becomes with each value of each axis, all with one seed, under names that say which."""
    config = work.config
    if config.seed < 0 and all(axis.setting != "seed" for axis in axes):
        config = replace(config, seed=secrets.randbelow(2**32))
    if config.optimizer in RATE_FREE_OPTIMIZERS and config.learning_rate == 1:
        config = replace(config, optimizer=None, learning_rate=Config.learning_rate)
    found = []
    for values in itertools.product(*(axis.values for axis in axes)):
        changed = {axis.setting: _read(SETTINGS[axis.setting], value) for axis, value in zip(axes, values)}
        name = "-".join((work.name, *(_UNFIT.sub("_", value)[:40] or "empty" for value in values)))
        found.append((values, replace(work, config=replace(settle(config, changed, ()), output_name=name))))
    return found


def compare(queue: Queue, work: Work, axes: Sequence[Axis]) -> Comparison:
    """Queues a training for each combination of values, and keeps which they are.

    BadInput with everything that stands against any of them, and then none is queued.
    """
    cells = works(work, axes)
    if faults := _faults(queue, work, cells, axes):
        raise BadInput(faults)
    added: list[Cell] = []
    try:
        for values, each in cells:
            added.append(Cell(values, queue.add(each).id))
        return _kept(queue, work.name, axes, added)
    except BaseException:
        for cell in added:
            with suppress(WrongState):  # it runs already
                queue.delete(cell.job)
        raise


def comparisons(queue: Queue) -> list[Comparison]:
    """All of them, the newest first; a damaged file is passed over."""
    found = (_read_file(file) for file in (queue.folder / FOLDER).glob("*.json"))
    return sorted((each for each in found if each), key=lambda each: -each.id)


def comparison(queue: Queue, id: int) -> Comparison | None:
    return _read_file(_file(queue, id))


def forget(queue: Queue, id: int) -> None:
    """Its jobs stay. OSError where the disk refuses."""
    _file(queue, id).unlink(missing_ok=True)


def _axis(given: Mapping[str, Any], faults: list[Problem]) -> Axis:
    setting, values = given.get("setting"), given.get("values")
    row = SETTINGS.get(setting) if isinstance(setting, str) else None
    if row is None or row.name not in COMPARABLE:
        faults.append(Problem("axes", setting, "is no setting that can be compared", "Choose another one."))
        return Axis(str(setting), ())
    if not isinstance(values, list) or not values:
        faults.append(Problem(row.name, values, "has no values to compare", f"Give some: {described(row)}."))
        return Axis(row.name, ())
    words = [_checked(row, value, faults) for value in values]
    if len(set(words)) < len(words):
        faults.append(Problem(row.name, values, "has the same value twice", "Take one of them out."))
    return Axis(row.name, tuple(words))


def _checked(row: Setting, value: Any, faults: list[Problem]) -> str:
    """The value as text, as `_read` takes it."""
    try:
        read = _read(row, value)
        wrong = fault(read, row) if read is not None else None
    except ValueError as error:
        read, wrong = value, str(error)
    if wrong:
        faults.append(Problem(row.name, value, wrong, f"Use {described(row)}."))
    return AUTOMATIC if read is None else _word(row, read)


def _read(row: Setting, value: Any) -> Any:
    """ValueError where it is no value of the setting."""
    if row.optional and value in (None, AUTOMATIC):
        return None
    if isinstance(value, str):
        value = value.splitlines() if kind(row) == "lines" else parse(value, row)
    return None if value is None and row.optional else convert(value, row)


def _word(row: Setting, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    shown = shown_value(row, value)
    return ", ".join(map(str, shown)) if isinstance(shown, list) else str(shown)


def _faults(
    queue: Queue, work: Work, cells: Sequence[tuple[tuple[str, ...], Work]], axes: Sequence[Axis]
) -> list[Problem]:
    """Each once. The pictures are looked at for one training only, unless the others' may differ."""
    look_again = any(SETTINGS[axis.setting].panel == "dataset" for axis in axes)
    found = [] if work.name else [Problem("output_name", "", "is missing", "Give the LoRAs a name.")]
    if work.config.preview_every_epochs == 0:
        remedy = "Set it to 1 or more: without previews there is nothing to compare."
        found.append(Problem("preview_every_epochs", 0, "makes no pictures", remedy))
    for number, (_, each) in enumerate(cells):
        found += queue.check(each, look=look_again or number == 0)
    return list({(each.setting, str(each.value), each.problem): each for each in found}.values())


def _kept(queue: Queue, name: str, axes: Sequence[Axis], cells: Sequence[Cell]) -> Comparison:
    id = max((each.id for each in comparisons(queue)), default=0) + 1
    made = Comparison(id, name, time.time(), tuple(axes), tuple(cells))
    write_text(_file(queue, id), json.dumps(asdict(made), ensure_ascii=False, indent=1))
    return made


def _read_file(file: Path) -> Comparison | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        axes = tuple(Axis(axis["setting"], tuple(axis["values"])) for axis in told["axes"])
        cells = tuple(Cell(tuple(cell["values"]), int(cell["job"])) for cell in told["cells"])
        return Comparison(int(told["id"]), str(told["name"]), float(told["created_at"]), axes, cells)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(queue: Queue, id: int) -> Path:
    return queue.folder / FOLDER / f"{id}.json"

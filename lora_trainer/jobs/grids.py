"""Grids that the host draws itself: which pictures belong to one, and where they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

from lora_trainer.files import write_text
from lora_trainer.hosts.host import Drawing

FOLDER, TOLD = "grids", "grid.json"


@dataclass(frozen=True)
class GridLora:
    """A LoRA of a grid by its file's name, and the moment of its training (0: not known).

    `changed`: when the file was, in nanoseconds since 1970.
    """

    file: str
    epoch: int = 0
    step: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Cell:
    """One picture: a prompt with a LoRA at a weight, each by its number in the grid; without them, the base alone."""

    prompt: int
    lora: int | None = None
    weight: int | None = None

    @property
    def file(self) -> str:
        numbers = (self.prompt,) if self.lora is None else (self.prompt, self.lora, self.weight)
        return "-".join(f"{number:02d}" for number in numbers) + ".png"


@dataclass(frozen=True)
class Grid:
    """Each LoRA of a job, or the one at the path `lora` below the host's folder of LoRAs, at each weight, by each
    prompt; beside the base without them.

    The rest is as `Drawing` has it; `created_at` in seconds since 1970.
    """

    name: str
    created_at: float
    base_model: str
    loras: tuple[GridLora, ...]
    weights: tuple[float, ...]
    prompts: tuple[str, ...]
    negative_prompt: str
    steps: int
    cfg_scale: float
    sampler: str
    width: int
    height: int
    seed: int
    clip_skip: int | None
    guidance: float | None = None
    job: int | None = None
    lora: str = ""
    id: int = 0

    def cells(self) -> list[Cell]:
        """In the order in which they are drawn: first those without a LoRA, then LoRA by LoRA."""
        numbers = range(len(self.prompts))
        drawn = ((lora, weight) for lora in range(len(self.loras)) for weight in range(len(self.weights)))
        return [
            *(Cell(prompt) for prompt in numbers),
            *(Cell(prompt, lora, weight) for lora, weight in drawn for prompt in numbers),
        ]

    def drawing(self, cell: Cell, files: list[Path]) -> Drawing:
        """What the host is to draw; `files` are those of the grid's LoRAs."""
        loras = () if cell.lora is None or cell.weight is None else ((files[cell.lora], self.weights[cell.weight]),)
        same = {field.name: getattr(self, field.name) for field in fields(Drawing) if hasattr(self, field.name)}
        return Drawing(**{**same, "checkpoint": self.base_model, "prompt": self.prompts[cell.prompt], "loras": loras})


class Grids:
    """A folder for each grid, below that of a queue's jobs. Its methods raise OSError where the disk refuses."""

    def __init__(self, queue: Path) -> None:
        self._folder = queue / FOLDER

    def folder(self, id: int) -> Path:
        return self._folder / str(id)

    def add(self, grid: Grid) -> Grid:
        """The same with its number; without pictures so far."""
        taken = max((int(path.name) for path in self._numbered()), default=0)
        for id in count(taken + 1):
            try:
                self.folder(id).mkdir(parents=True)
            except FileExistsError:  # another one was added meanwhile
                continue
            told = {name: value for name, value in asdict(grid).items() if name != "id"}
            write_text(self.folder(id) / TOLD, json.dumps(told, ensure_ascii=False, indent=1))
            return Grid(**{**vars(grid), "id": id})
        raise AssertionError

    def all(self) -> list[Grid]:
        """The newest first; damaged ones are passed over."""
        found = map(self.get, sorted((int(path.name) for path in self._numbered()), reverse=True))
        return [grid for grid in found if grid]

    def get(self, id: int) -> Grid | None:
        """None where there is none, or none that can be read."""
        try:
            told = json.loads((self.folder(id) / TOLD).read_text(encoding="utf-8"))
            return _read(told, id)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def there(self, grid: Grid) -> list[str]:
        """The files of the cells that are drawn."""
        return [cell.file for cell in grid.cells() if (self.folder(grid.id) / cell.file).is_file()]

    def remove(self, id: int) -> None:
        shutil.rmtree(self.folder(id))

    def remove_of(self, job: int) -> None:
        """Those of a job that is no more."""
        for grid in self.all():
            if grid.job == job:
                self.remove(grid.id)

    def _numbered(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from (path for path in self._folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _read(told: dict[str, Any], id: int) -> Grid:
    loras = tuple(GridLora(**lora) for lora in told["loras"])
    weights = tuple(map(float, told["weights"]))
    return Grid(**{**told, "loras": loras, "weights": weights, "prompts": tuple(map(str, told["prompts"])), "id": id})

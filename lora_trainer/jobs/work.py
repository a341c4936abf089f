"""What a job is to do: prepare a dataset, train a LoRA, or the one and then the other; or draw with one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lora_trainer.config import SETTINGS, BadInput, Config, Problem, Subset


@dataclass(frozen=True)
class Prepare:
    """What is done to a dataset before training: what `preparing.run.prepare` takes.

    `folder` is the dataset, into which `sources` (folders, pictures, zips) are brought. `unwanted` tags are taken out
    of all captions, `uncut` makes cut pictures whole again, and `models` is where taggers lie ("": the usual place).
    """

    folder: str
    sources: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    uncut: bool = False
    models: str = ""


@dataclass(frozen=True)
class Work:
    """A job as its user gave it; without `train` it only prepares.

    With `weights` it draws a grid instead: the LoRA `config.start_lora` at each of these strengths, by each of
    `config.preview_prompts`.
    """

    config: Config
    prepare: Prepare | None = None
    train: bool = True
    weights: tuple[float, ...] = ()

    @property
    def kind(self) -> str:
        return "train" if self.train else "grid" if self.weights else "prepare"

    @property
    def name(self) -> str:
        """The LoRA's name; of a job that only prepares, the dataset's."""
        if self.kind == "train":
            return self.config.output_name or self.config.dataset_name
        return self._place.stem if self.weights else self._place.name

    @property
    def output_folder(self) -> str:
        """Where the result is to lie; of a grid, where its LoRA does."""
        return self.config.output_folder if self.kind == "train" else str(self._place.parent)

    @property
    def _place(self) -> Path:
        """What a job that does not train is about: a LoRA or a dataset."""
        return Path((self.config.start_lora or "") if self.weights else self.prepare.folder if self.prepare else "")


_KINDS = {
    "folder": "text",
    "sources": "a list of texts",
    "unwanted": "a list of texts",
    "uncut": "true or false",
    "models": "text",
}


def read_prepare(values: object) -> Prepare:
    """The `Prepare` of a plain dictionary, such as `dataclasses.asdict` and JSON give. BadInput with all problems."""
    remedy = f"Use an object with {', '.join(_KINDS)}."
    if not isinstance(values, Mapping):
        raise BadInput(Problem("prepare", values, "is not an object", remedy))
    faults = []
    for name, value in values.items():
        if name not in _KINDS:
            faults.append(Problem(f"prepare.{name}", value, "is not known", remedy))
        elif not _is_of(_KINDS[name], value):
            faults.append(Problem(f"prepare.{name}", value, f"must be {_KINDS[name]}", f"Use {_KINDS[name]}."))
    if not values.get("folder"):
        faults.append(Problem("prepare.folder", None, "no dataset is named", "Name the dataset's folder."))
    if faults:
        raise BadInput(faults)
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Prepare(**read)


def _is_of(described: str, value: object) -> bool:
    if described == "a list of texts":
        return isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
    return isinstance(value, bool if described == "true or false" else str)


def absolute(work: Work) -> Work:
    """The same work, whatever folder its worker is started in: each path is made absolute from the current one."""
    prepare = work.prepare
    if prepare:
        sources, models = tuple(map(_absolute, prepare.sources)), _absolute(prepare.models)
        prepare = replace(prepare, folder=_absolute(prepare.folder), sources=sources, models=models)
    config = work.config
    subsets = tuple(_with_folder(subset) for subset in config.subsets)
    paths: dict[str, Any] = {name: _absolute(getattr(config, name)) for name in PATHS if getattr(config, name)}
    return replace(work, config=replace(config, subsets=subsets, **paths), prepare=prepare)


def paths_of(work: Work) -> Iterator[tuple[str, str]]:
    """Every path that the work names, each after its setting."""
    yield from ((name, path) for name in PATHS if (path := getattr(work.config, name)))
    yield from ((f"subsets.{number}.folder", subset.folder) for number, subset in enumerate(work.config.subsets, 1))
    if prepare := work.prepare:
        yield "prepare.folder", prepare.folder
        yield from (("prepare.sources", source) for source in prepare.sources)
        yield from (("prepare.models", path) for path in [prepare.models] if path)


PATHS = tuple(name for name, row in SETTINGS.items() if row.path)


def _with_folder(subset: Subset) -> Subset:
    return replace(subset, folder=_absolute(subset.folder))


def _absolute(path: str) -> str:
    if not path:
        return ""
    try:
        place = Path(path).expanduser()
    except RuntimeError:  # ~name of nobody: a folder may be called so
        place = Path(path)
    return os.path.normpath(place.absolute())

"""What stands against a job before it is queued: settings, files, pictures."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lora_trainer.config import FAMILIES, SETTINGS, BadInput, Config, Problem, problems
from lora_trainer.config.values import UNSTORABLE
from lora_trainer.inspecting import identify
from lora_trainer.inspecting.parts import find_parts, is_flux, named_in
from lora_trainer.jobs.work import PATHS, Prepare, Work

LEAST_WEIGHT, MOST_WEIGHT = -2, 2  # of a LoRA in a prompt, where the WebUI's slider ends
MOST_DRAWN = 9  # rows of a grid, and columns
_PANELS = {"prepare": ("dataset",), "grid": ("model", "previews")}  # whose settings a job uses that does not train
_LONGEST_NAME = 255  # bytes, as file systems have it


def faults(work: Work, look: bool = True) -> list[Problem]:
    """Everything that is wrong with the work, one problem for each mistake. Unless told, looks at each picture."""
    if work.kind == "prepare" and work.prepare is None:
        return [Problem("prepare", None, "there is nothing to do", "Name a dataset to prepare, or train.")]
    found = [*_settings(work), *(_preparing(work.prepare) if work.prepare else ())]
    if work.kind == "grid":
        found += _drawing(work, _reported(found))
    if work.train:
        reported = _reported(found)
        looked: tuple[Problem, ...] = (*_files(work.config), *_place("output_folder", work.config.output_folder))
        looked += _pictures(work, reported) if look else ()
        found += (problem for problem in looked if problem.setting.partition(".")[0] not in reported)
    return found


def weight_faults(weights: Sequence[float]) -> Iterator[Problem]:
    """What is wrong with the weights of a grid."""
    if not all(LEAST_WEIGHT <= weight <= MOST_WEIGHT for weight in weights):
        yield Problem("weights", weights, f"must be from {LEAST_WEIGHT} to {MOST_WEIGHT}", "Use such as 0.8.")
    if len(weights) > MOST_DRAWN:
        yield Problem("weights", weights, f"are more than {MOST_DRAWN}", "Draw them in two grids.")


def _reported(found: Collection[Problem]) -> set[str]:
    return {problem.setting.partition(".")[0] for problem in found}


def _settings(work: Work) -> Iterator[Problem]:
    """Of a job that does not train, those about what it does count; it has the name of its dataset or LoRA."""
    for problem in problems(work.config):
        row = SETTINGS.get(problem.setting)
        if work.train or (row and row.panel in _PANELS[work.kind] and row.name != "subsets"):
            yield problem


def _drawing(work: Work, reported: Collection[str]) -> Iterator[Problem]:
    """What is wrong with a grid's own: its LoRA and base, weights and prompts."""
    config = work.config
    yield from weight_faults(work.weights)
    if not 0 < len(config.preview_prompts) <= MOST_DRAWN:
        yield Problem("preview_prompts", None, f"must be 1 to {MOST_DRAWN}", "Write one prompt on each line.")
    if not config.start_lora:
        yield Problem("start_lora", None, "no LoRA is named", "Name the LoRA to draw with.")
    yield from (problem for problem in _files(config) if problem.setting not in reported)


def _preparing(prepare: Prepare) -> Iterator[Problem]:
    told = (prepare.folder, *prepare.sources, *prepare.unwanted, prepare.models)
    if unfit := [text for text in told if UNSTORABLE.search(text)]:
        yield Problem("prepare", unfit[0], "contains a character that no file can hold", "Use plain text.")
        return
    if not prepare.folder:
        yield Problem("prepare.folder", None, "no dataset is named", "Name the dataset's folder.")
        return
    for source in prepare.sources:
        if not is_there(source):
            yield Problem("prepare.sources", source, "there is no such file or folder", "Check its name.")
    if not prepare.sources and not is_there(prepare.folder):
        yield Problem("prepare.folder", prepare.folder, "there is no such dataset", "Check its name, or name sources.")
    yield from _place("prepare.folder", prepare.folder)


def _files(config: Config) -> Iterator[Problem]:
    missing = list(_missing(config))
    told = {problem.setting for problem in missing}
    yield from missing
    if "base_model" not in told and is_flux(Path(config.base_model)):
        base = identify(Path(config.base_model))
        yield from (problem for problem in find_parts(base, named_in(config)).problems if problem.setting not in told)


def _missing(config: Config) -> Iterator[Problem]:
    for name in PATHS:
        row, value = SETTINGS[name], getattr(config, name)
        used = row.applies is None or row.applies.test(config)
        if value and used and name not in ("output_folder", "mask_folder") and not is_there(value):
            yield Problem(name, value, "there is no such file", "Check the path.")


def _place(setting: str, folder: str) -> Iterator[Problem]:
    """Whether a folder can be there, as far as can be told without making it."""
    path = Path(folder)
    there = next(place for place in (path, *path.parents) if is_there(place) or place == place.parent)
    if not _can_be(path):
        yield Problem(setting, folder, "no folder can have this name", "Use a shorter, plain name.")
    elif not there.is_dir():
        yield Problem(setting, folder, f"{there} is no folder", "Name a folder.")
    elif not os.access(there, os.W_OK):
        yield Problem(setting, folder, "can't be written to", "Choose a folder that you may write to.")


def _pictures(work: Work, reported: Collection[str]) -> tuple[Problem, ...]:
    """What is wrong with the folders of pictures; those that are yet to be prepared are passed over."""
    try:
        from lora_trainer.dataset.folders import find_pictures
    except ImportError:  # without Pillow, the worker is the first to look
        return ()
    config = replace(work.config, **{name: SETTINGS[name].default for name in reported if name in SETTINGS})
    made = Path(work.prepare.folder) if work.prepare else None
    subsets = tuple(part for part in config.subsets if not (made and Path(part.folder).is_relative_to(made)))
    if "subsets" in reported or (made and not subsets):
        return ()
    try:
        find_pictures(replace(config, subsets=subsets).for_family(family_of(config)))
    except BadInput as error:
        return error.problems
    return ()


def is_there(path: str | Path) -> bool:
    """Whether there is such a file or folder; False for what can be no name of one, too."""
    try:
        return bool(str(path)) and Path(path).exists()
    except (OSError, ValueError):
        return False


def _can_be(path: Path) -> bool:
    """Whether a file system takes these names, and a path of this length."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return all(len(part.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME for part in path.parts)
    except (OSError, ValueError):
        return False
    return True


def family_of(config: Config) -> str:
    """The family that is said, or a likely one: it decides what is left open of resolution and buckets."""
    return config.family if config.family in FAMILIES else "sd15"

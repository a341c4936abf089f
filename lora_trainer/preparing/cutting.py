"""The pictures of a dataset cut to one size, each from its original."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.crop import Cut, cut_for, make_cut
from lora_trainer.dataset.pictures import read_alpha, read_picture
from lora_trainer.dataset.recipe import Recipe
from lora_trainer.dataset.store import Dataset, Entry
from lora_trainer.dataset.store.develop import KEEP, PNG_LEVEL
from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Stop
from lora_trainer.preparing.cut_sheet import cut_sheet
from lora_trainer.preparing.focus import Focus, load_finder

MOST_SHOWN = 60

Find = Callable[[Image.Image], "Focus | None"]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Plan:
    """Where a picture is cut, and around what."""

    cut: Cut
    focus: Focus | None

    def __str__(self) -> str:
        return f"{self.around} {','.join(map(str, self.cut.box))}"

    @property
    def around(self) -> str:
        return self.focus.what if self.focus else "centre"


@dataclass
class Done:
    """`around` counts the pictures by what they were cut around: face, subject, centre."""

    around: Counter[str] = field(default_factory=Counter)
    enlarged: list[str] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)


def load_find(recipe: Recipe) -> Find:
    """What finds the focus; it finds nothing, and is nothing to load, where cuts go around the centre."""
    return load_finder() if recipe.mode == "focus" else lambda image: None


def cut_all(dataset: Dataset, recipe: Recipe, report: Report, stop: Stop) -> Done:
    """Cuts every picture that is not cut by this recipe yet. A stop takes effect between two pictures."""
    done = Done()
    todo = [entry for entry in dataset.entries() if not entry.cut.startswith(f"{recipe}: ")]
    if not todo:
        return done
    for entry, plan in _made(dataset, todo, partial(_cut_out, dataset, recipe, load_find(recipe)), done, report, stop):
        done.around[plan.around] += 1
        done.enlarged += [entry.file] if plan.cut.enlarged else []
    return done


def uncut_all(dataset: Dataset, background: str, report: Report, stop: Stop) -> Done:
    """Puts the whole picture back where one was cut; counted in `around` as "nothing"."""
    done = Done()
    todo = [entry for entry in dataset.entries() if entry.cut]
    for _ in _made(dataset, todo, partial(_whole, dataset, background), done, report, stop):
        done.around["nothing"] += 1
    return done


def sheet_of_cuts(dataset: Dataset, recipe: Recipe) -> Image.Image:
    """Where the first MOST_SHOWN pictures of the dataset would be cut, drawn into them; nothing is cut."""
    find = load_find(recipe)

    def planned(entry: Entry) -> tuple[Image.Image, Cut, Focus | None]:
        image = read_picture(dataset.original(entry))
        plan = plan_cut(image, recipe, find)
        return image, plan.cut, plan.focus

    return cut_sheet(map(planned, dataset.entries()[:MOST_SHOWN]))


def plan_cut(image: Image.Image, recipe: Recipe, find: Find) -> Plan:
    focus = find(image)
    return Plan(cut_for(image.size, recipe.size, focus, recipe.enlarge), focus)


Made = tuple[Answer, bytes, str]  # for who asked; the new picture as PNG; how it was made


def _made(
    dataset: Dataset,
    todo: Sequence[Entry],
    make: Callable[[Entry], Made[Answer]],
    done: Done,
    report: Report,
    stop: Stop,
) -> Iterator[tuple[Entry, Answer]]:
    """Each entry whose picture has been replaced by what `make` gives for it; those that cannot be are left out."""

    def made_or_not(entry: Entry) -> Made[Answer] | BadInput:
        try:
            return make(entry)
        except BadInput as error:
            return error

    with closing(ahead(made_or_not, todo)) as results:
        for number, (entry, result) in enumerate(zip(todo, results), 1):
            try:
                yield entry, _put(dataset, entry, result)
            except BadInput as error:
                done.left_out += error.problems
            report("phase", name="cutting", done=number, of=len(todo))
            if stop.wanted:
                break


def _put(dataset: Dataset, entry: Entry, result: Made[Answer] | BadInput) -> Answer:
    if isinstance(result, BadInput):
        raise result
    answer, png, how = result

    def write(path: Path) -> None:
        path.write_bytes(png)

    dataset.replace_picture(entry, write, how)
    return answer


def _cut_out(dataset: Dataset, recipe: Recipe, find: Find, entry: Entry) -> Made[Plan]:
    path = dataset.original(entry)
    image, alpha = _read(path, recipe.background)
    plan = plan_cut(image, recipe, find)
    cut = make_cut(image, plan.cut)
    if alpha:
        cut.putalpha(make_cut(alpha, plan.cut))
    return plan, _png(cut), f"{recipe}: {plan}"


def _whole(dataset: Dataset, background: str, entry: Entry) -> Made[None]:
    image, alpha = _read(dataset.original(entry), background)
    if alpha:
        image.putalpha(alpha)
    return None, _png(image), ""


def _read(path: Path, background: str) -> tuple[Image.Image, Image.Image | None]:
    """The picture, and its transparency where it has some that is to be kept. Raises BadInput."""
    if background != KEEP:
        return read_picture(path, background), None
    alpha = read_alpha(path)
    return read_picture(path), alpha if alpha.getextrema() != (255, 255) else None


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.info.clear()  # what is in it of profiles and turns has been applied
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()

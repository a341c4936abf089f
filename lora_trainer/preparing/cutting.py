"""The pictures of a dataset cut to one size, each from its original."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.buckets import Size
from lora_trainer.dataset.crop import Cut, cut_for, make_cut
from lora_trainer.dataset.pictures import read_alpha, read_picture
from lora_trainer.dataset.store import Dataset, Entry
from lora_trainer.dataset.store.develop import KEEP, PNG_LEVEL
from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Stop
from lora_trainer.preparing.cut_sheet import cut_sheet
from lora_trainer.preparing.focus import Focus, load_finder

USUAL_SIZE = (1024, 1024)  # where none is asked for: the largest that any family trains at, and nothing grows for it
MOST_SHOWN = 60

Find = Callable[[Image.Image], "Focus | None"]


@dataclass(frozen=True)
class Recipe:
    """How pictures are cut; its text, kept with each picture, tells which are done already."""

    mode: str
    size: Size
    enlarge: bool
    background: str

    def __str__(self) -> str:
        limit = "" if self.enlarge else "at most "
        return f"{self.mode} {limit}{self.size[0]}x{self.size[1]} on {self.background}"


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
    """`around` counts the pictures cut by what they were cut around: face, subject, centre."""

    around: Counter[str] = field(default_factory=Counter)
    enlarged: list[str] = field(default_factory=list)
    left_out: list[Problem] = field(default_factory=list)


def recipe_of(config: Config) -> Recipe:
    size = config.crop_size or config.resolution
    return Recipe(config.crop, size or USUAL_SIZE, bool(size) and not config.bucket_no_upscale, config.background)


def load_find(recipe: Recipe) -> Find:
    """What finds the focus; it finds nothing, and is nothing to load, where cuts go around the centre."""
    return load_finder() if recipe.mode == "focus" else lambda image: None


def cut_all(dataset: Dataset, recipe: Recipe, report: Report, stop: Stop) -> Done:
    """Cuts every picture that is not cut by this recipe yet. A stop takes effect between two pictures."""
    done = Done()
    todo = [entry for entry in dataset.entries() if not entry.cut.startswith(f"{recipe}: ")]
    if not todo:
        return done
    with closing(ahead(partial(_cut_out, dataset, recipe, load_find(recipe)), todo)) as results:
        for number, (entry, result) in enumerate(zip(todo, results), 1):
            try:
                plan = _put(dataset, recipe, entry, result)
                done.around[plan.around] += 1
                done.enlarged += [entry.file] if plan.cut.enlarged else []
            except BadInput as error:
                done.left_out += error.problems
            report("phase", name="cutting", done=number, of=len(todo))
            if stop.wanted:
                break
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


def _cut_out(dataset: Dataset, recipe: Recipe, find: Find, entry: Entry) -> tuple[Plan, bytes] | BadInput:
    """Where the picture is cut, and the cut as PNG, from its original."""
    path = dataset.original(entry)
    try:
        image = read_picture(path, "white" if recipe.background == KEEP else recipe.background)
        plan = plan_cut(image, recipe, find)
        cut = make_cut(image, plan.cut)
        if recipe.background == KEEP and (alpha := make_cut(read_alpha(path), plan.cut)).getextrema() != (255, 255):
            cut.putalpha(alpha)
    except BadInput as error:
        return error
    png = io.BytesIO()
    cut.save(png, "PNG", compress_level=PNG_LEVEL)
    return plan, png.getvalue()


def _put(dataset: Dataset, recipe: Recipe, entry: Entry, result: tuple[Plan, bytes] | BadInput) -> Plan:
    """The cut put in the picture's place. Raises BadInput."""
    if isinstance(result, BadInput):
        raise result
    plan, png = result

    def write(path: Path) -> None:
        path.write_bytes(png)

    dataset.replace_picture(entry, write, f"{recipe}: {plan}")
    return plan

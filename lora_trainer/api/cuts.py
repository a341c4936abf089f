"""Where pictures would be cut, before any is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Route
from lora_trainer.api.aside import told_by
from lora_trainer.api.bodies import OBJECT, Body, fields
from lora_trainer.api.jobs import read_config
from lora_trainer.api.pictures import numbers, stamp_of
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS, OpenSet
from lora_trainer.api.tasks import TASKS, Task, started
from lora_trainer.config import BadInput, problems
from lora_trainer.dataset.crop import Focus, cut_for
from lora_trainer.dataset.pictures import picture_size
from lora_trainer.dataset.recipe import Recipe, recipe_of
from lora_trainer.dataset.store import Entry

MOST_PICTURES = 60
SETTINGS_OF_CUTS = ("crop", "crop_size", "resolution", "bucket_no_upscale", "background")


@dataclass(frozen=True)
class CutRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/datasets/{name}/cuts", self.plan_cuts, methods=["POST"])
        return router

    def plan_cuts(self, name: str, body: Body = OBJECT) -> Response:
        """A task: for `pictures` (ids) or the first ones, `most` of them, the box to be cut out of each as it came."""
        body = fields(body, {"form": dict, "config": dict, "pictures": list, "most": int})
        folder = self.places.dataset(name)
        most = max(0, min(body.get("most", MOST_PICTURES), MOST_PICTURES))
        ids = numbers(body, "pictures") if "pictures" in body else None
        config = read_config(only(body, SETTINGS_OF_CUTS), self.places)
        if wrong := [problem for problem in problems(config) if problem.setting in SETTINGS_OF_CUTS]:
            raise BadInput(wrong)
        recipe = recipe_of(config)
        return started(TASKS.start("cuts", name, lambda task: self._plan(task, folder, recipe, ids, most)))

    def _plan(self, task: Task, folder: Path, recipe: Recipe, ids: Sequence[int] | None, most: int) -> dict[str, Any]:
        with SETS.use(folder) as found:
            entries = found.snapshot.entries
            if ids is not None:
                entries = [found.snapshot.by_id[id] for id in ids if id in found.snapshot.by_id]
            entries = entries[:most]
            if recipe.mode == "focus":
                self._find(task, found, [found.dataset.original(entry) for entry in entries])
            cuts = [_cut(found, entry, recipe) for entry in entries]
        return {"cuts": [cut for cut in cuts if cut]}

    def _find(self, task: Task, found: OpenSet, pictures: Sequence[Path]) -> None:
        """Looks for what pictures are cut around, in a process that has the packages for it."""
        stamps = {str(path): stamp_of(path) for path in pictures}
        new = [path for path, stamp in stamps.items() if (Path(path), stamp) not in found.focuses]
        if not new:
            return
        for done, seen in enumerate(told_by(task, self.places.host.python, "focus", "--json", *new), 1):
            focus = Focus((*seen["box"],), seen["what"]) if seen.get("box") else None
            found.focuses[Path(seen["picture"]), stamps[seen["picture"]]] = focus
            task.tell(done, len(new), "looking")


def only(body: Body, names: Sequence[str]) -> Body:
    """The body with these settings alone: what is wrong with another one is no matter here."""
    return {
        key: {name: value[name] for name in names if name in value} if key in ("form", "config") else value
        for key, value in body.items()
    }


def _cut(found: OpenSet, entry: Entry, recipe: Recipe) -> dict[str, Any] | None:
    """None for a picture that cannot be read."""
    path = found.dataset.original(entry)
    try:
        size = picture_size(path)
    except BadInput:
        return None
    stamp = stamp_of(path)
    focus = found.focuses.get((path, stamp)) if recipe.mode == "focus" else None
    cut = cut_for(size, recipe.size, focus, recipe.enlarge)
    return {
        "id": entry.id,
        "file": entry.file,
        "stamp": stamp,
        "width": size[0],
        "height": size[1],
        "box": cut.box,
        "size": cut.size,
        "enlarged": cut.enlarged,
        "around": focus.what if focus else "centre",
        "focus": focus.box if focus else None,
    }

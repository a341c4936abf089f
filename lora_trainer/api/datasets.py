"""Sets of pictures: made, filled with a file at a time, looked at, and put aside."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from lora_trainer.api.answers import Answer, Refused, Route
from lora_trainer.api.bodies import OBJECT, Body, fields, number
from lora_trainer.api.places import Places
from lora_trainer.api.uploads import place_in, receive
from lora_trainer.dataset.store import Dataset, Entry
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

ASIDE = ".deleted"
MOST_PICTURES = 1000


@dataclass(frozen=True)
class DatasetRoutes:
    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/datasets", self.make_dataset, methods=["POST"])
        router.add_api_route("/datasets", self.list_datasets, methods=["GET"])
        router.add_api_route("/datasets/{name}", self.show_dataset, methods=["GET"])
        router.add_api_route("/datasets/{name}", self.delete_dataset, methods=["DELETE"])
        router.add_api_route("/datasets/{name}/files/{path:path}", self.put_file, methods=["PUT"])
        router.add_api_route("/datasets/{name}/files/{path:path}", self.show_file, methods=["GET"])
        return router

    def make_dataset(self, body: Body = OBJECT) -> Response:
        """An empty set, to be filled by PUT .../files/10_name/file.png; a job that prepares cuts and tags it."""
        name = fields(body, {"name": str}, required=("name",))["name"]
        self.places.free_dataset(name).mkdir(parents=True)
        return Answer({"name": name}, 201, {"Location": f"datasets/{name}"} if name.isascii() else None)

    def list_datasets(self) -> Response:
        return Answer({"datasets": [_facts(folder) for folder in self.places.all_datasets()]})

    def show_dataset(self, name: str, request: Request) -> Response:
        """The pictures from ?offset= on, with their sizes and captions, and what opening the set has found."""
        offset = number(request, "offset", 0) or 0
        limit = number(request, "limit", MOST_PICTURES, MOST_PICTURES) or 0
        folder = self.places.dataset(name)
        with Dataset.open(folder) as dataset:
            entries, notices = dataset.entries(), list(dataset.notices)
        pictures = list(map(_picture, entries[offset : offset + limit]))
        return Answer({**_facts(folder), "count": len(entries), "pictures": pictures, "notices": notices})

    def delete_dataset(self, name: str) -> Response:
        """Nothing is lost: the folder is moved to `.deleted` beside the others, where its owner may delete it."""
        put_aside(self.places.dataset(name), self.queue)
        return Response(status_code=204)

    async def put_file(self, name: str, path: str, request: Request) -> Response:
        """The request's bytes become this picture or caption; 201, or 200 where it is there already."""
        added = await receive(request, place_in(self.places.dataset(name), path))
        return Answer({"file": path}, 201 if added else 200)

    def show_file(self, name: str, path: str) -> Response:
        file = place_in(self.places.dataset(name), path)
        if not file.is_file():
            raise Refused(404, f"There is no file {path[:80]!r} in the dataset {name}.")
        return FileResponse(file, headers={"X-Content-Type-Options": "nosniff", "Content-Disposition": "inline"})


def put_aside(folder: Path, queue: Queue) -> None:
    """Moves a dataset to where datasets are that nobody wants. Refused (409) while an unfinished job needs it."""
    for job in queue.line():
        if folder in map(Path, _folders(queue.work(job.id))):
            raise Refused(409, f"Job {job.id} needs the dataset {folder.name}. Stop or delete that job first.")
    aside = folder.parent / ASIDE
    aside.mkdir(exist_ok=True)
    names = (f"{folder.name}-{turn}" if turn > 1 else folder.name for turn in count(1))
    folder.rename(next(aside / name for name in names if not (aside / name).exists()))


def _folders(work: Work) -> list[str]:
    folders = [subset.folder for subset in work.config.subsets] if work.train else []
    return [*folders, work.prepare.folder, *work.prepare.sources] if work.prepare else folders


def _facts(folder: Path) -> dict[str, Any]:
    return {"name": folder.name, "folder": folder, "modified": folder.stat().st_mtime}


def _picture(entry: Entry) -> dict[str, Any]:
    """`path` is what stands behind .../files/."""
    shown = {name: getattr(entry, name) for name in ("width", "height", "caption")}
    return {"path": f"{entry.folder}/{entry.file}".lstrip("/"), **shown}

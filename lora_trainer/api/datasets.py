"""Sets of pictures: made, filled with a file at a time, looked at, and put aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from lora_trainer.api.answers import Answer, Refused, Route
from lora_trainer.api.bodies import OBJECT, Body, fields, number
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS
from lora_trainer.api.uploads import place_in, receive
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset.store import Entry
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
        """The pictures from ?offset= on, with their sizes and captions, and what opening the set has found.

        With ?quick=1 nothing is looked for in the folder that somebody may have changed there meanwhile.
        """
        offset = number(request, "offset", 0) or 0
        limit = number(request, "limit", MOST_PICTURES, MOST_PICTURES) or 0
        folder = self.places.dataset(name)
        quick = request.query_params.get("quick") == "1"
        notices = SETS.said(folder) if quick else SETS.settle(folder)
        with SETS.use(folder) as found:
            entries, left_out = found.snapshot.entries, found.dataset.left_out()
            version = "-".join(map(str, found.dataset.version))
        facts = {
            **_facts(folder),
            "version": version,
            "count": len(entries),
            "captioned": sum(bool(entry.line) for entry in entries),
            "cut": sum(bool(entry.cut) for entry in entries),
            "left_out": len(left_out),
            "folders": _folders_of(entries),
            "pictures": list(map(_picture, entries[offset : offset + limit])),
            "notices": notices,
        }
        return Answer(facts)

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
    SETS.let_go(folder)
    aside = folder.parent / ASIDE
    aside.mkdir(exist_ok=True)
    names = (f"{folder.name}-{turn}" if turn > 1 else folder.name for turn in count(1))
    folder.rename(next(aside / name for name in names if not (aside / name).exists()))


def _folders(work: Work) -> list[str]:
    folders = [subset.folder for subset in work.config.subsets] if work.train else []
    return [*folders, work.prepare.folder, *work.prepare.sources] if work.prepare else folders


def _facts(folder: Path) -> dict[str, Any]:
    return {"name": folder.name, "folder": folder, "modified": folder.stat().st_mtime}


def _folders_of(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The set's folders of pictures; `repeats` is what a name such as 10_zdm says, 0 where it says nothing."""
    counts = Counter(entry.folder for entry in entries)
    return [{"name": name, "repeats": repeats_and_class(name)[0], "pictures": count} for name, count in counts.items()]


def _picture(entry: Entry) -> dict[str, Any]:
    """`path` is what stands behind .../files/."""
    shown = {name: getattr(entry, name) for name in ("width", "height", "caption")}
    return {"path": f"{entry.folder}/{entry.file}".lstrip("/"), **shown}

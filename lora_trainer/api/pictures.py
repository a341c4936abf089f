"""A set's pictures: listed a page at a time, shown small, left out and put back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import FOR_GOOD, Answer, Refused, Route, problem
from lora_trainer.api.bodies import NUMBER, OBJECT, Body, fields, number
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS, OpenSet, Snapshot
from lora_trainer.dataset.edits import tag_key
from lora_trainer.dataset.store import Entry
from lora_trainer.dataset.store.index import stamp_at
from lora_trainer.dataset.store.thumbnails import MEDIA_TYPE

MOST_PICTURES = 1000
NOT_KEPT = {"Cache-Control": "no-cache"}


@dataclass(frozen=True)
class PictureRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/datasets/{name}/pictures", self.list_pictures, methods=["GET"])
        router.add_api_route("/datasets/{name}/pictures/{id}/thumbnail", self.show_thumbnail, methods=["GET"])
        router.add_api_route("/datasets/{name}/leave_out", self.leave_out, methods=["POST"])
        router.add_api_route("/datasets/{name}/left_out", self.list_left_out, methods=["GET"])
        router.add_api_route("/datasets/{name}/put_back", self.put_back, methods=["POST"])
        return router

    def list_pictures(self, name: str, request: Request) -> Response:
        """Those from ?offset= on; only those with ?tag=, with ?search= in name or caption, or ?without_caption=1.

        `place` is where among all of these the picture ?place_of=ID is, null where it is not one of them.
        """
        offset = number(request, "offset", 0) or 0
        wanted = number(request, "place_of", None)
        limit = number(request, "limit", 100, MOST_PICTURES) or 0
        with SETS.use(self.places.dataset(name)) as found:
            entries = _chosen(found.snapshot, request)
            page = [facts(found, entry) for entry in entries[offset : offset + limit]]
        place = next((place for place, entry in enumerate(entries) if entry.id == wanted), None)
        return Answer({"count": len(entries), "offset": offset, "pictures": page, "place": place})

    def show_thumbnail(self, name: str, id: str, request: Request) -> Response:
        """A small JPEG; of the picture as it came with ?original=1. With its ?stamp= it may be kept for good."""
        with SETS.use(self.places.dataset(name)) as found:
            entry = found.snapshot.by_id.get(int(id)) if NUMBER.fullmatch(id) else None
            if entry is None:
                raise Refused(404, f"There is no picture {id[:80]} in the dataset {name}.")
            original = request.query_params.get("original") == "1"
            path = found.dataset.original(entry) if original else found.dataset.picture(entry)
            data = found.thumbnails.get(path)
        kept = request.query_params.get("stamp") == stamp_of(path)
        return Response(data, media_type=MEDIA_TYPE, headers=FOR_GOOD if kept else NOT_KEPT)

    def leave_out(self, name: str, body: Body = OBJECT) -> Response:
        """Moves pictures with their captions to the set's folder left_out; `files`: what they are called there."""
        ids = numbers(fields(body, {"pictures": list}, required=("pictures",)), "pictures")
        with SETS.use(self.places.dataset(name)) as found:
            before, there = found.snapshot.by_id, set(found.dataset.left_out())
            notices = found.dataset.remove(ids)
            gone = before.keys() - found.snapshot.by_id.keys()
            files = [file for file in found.dataset.left_out() if file not in there]
        return Answer({"left_out": sorted(gone & set(ids)), "files": files, "notices": notices})

    def list_left_out(self, name: str) -> Response:
        with SETS.use(self.places.dataset(name)) as found:
            return Answer({"files": found.dataset.left_out()})

    def put_back(self, name: str, body: Body = OBJECT) -> Response:
        """Moves pictures, named as the list of those left out has them, to where they were."""
        files = texts(fields(body, {"files": list}, required=("files",)), "files")
        with SETS.use(self.places.dataset(name)) as found:
            notices = found.dataset.put_back(files)
            still = set(found.dataset.left_out())
        return Answer({"put_back": [file for file in files if file not in still], "notices": notices})


def facts(found: OpenSet, entry: Entry) -> dict[str, Any]:
    """A picture as JSON can say it; `path` is what stands behind .../files/, `stamp` changes with its file."""
    named = ("id", "folder", "file", "width", "height", "caption", "line", "cut")
    shown = {name: getattr(entry, name) for name in named}
    return {
        **shown,
        "path": f"{entry.folder}/{entry.file}".lstrip("/"),
        "stamp": stamp_of(found.dataset.picture(entry)),
        "original_stamp": stamp_of(found.dataset.original(entry)),
    }


def stamp_of(path: Path) -> str:
    """The file's size and time in few letters, "" where it is gone."""
    return "-".join(f"{int(number):x}" for number in stamp_at(path).split())


def numbers(body: Body, name: str) -> list[int]:
    """A list of whole numbers in a body. Raises BadInput."""
    return _each(body, name, int, "whole numbers")


def texts(body: Body, name: str) -> list[str]:
    """A list of texts in a body. Raises BadInput."""
    return _each(body, name, str, "texts")


def _each(body: Body, name: str, kind: type, said: str) -> list[Any]:
    found: Iterable[Any] = body[name]
    wrong = next((value for value in found if type(value) is not kind), None)
    if wrong is not None:
        raise problem(name, wrong, f"must be a list of {said}", f"Give {said}.")
    return list(found)


def _chosen(snapshot: Snapshot, request: Request) -> list[Entry]:
    asked = request.query_params
    entries = snapshot.by_tag.get(tag_key(asked["tag"]), []) if asked.get("tag") else snapshot.entries
    if asked.get("without_caption") == "1":
        entries = [entry for entry in entries if not entry.line]
    if words := asked.get("search", "").casefold().strip():
        entries = [entry for entry in entries if words in entry.file.casefold() or words in entry.caption.casefold()]
    return entries

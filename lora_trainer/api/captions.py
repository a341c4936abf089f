"""The captions of a set: written, edited all at once, undone, counted and advised on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import Answer, Route, problem
from lora_trainer.api.bodies import NUMBER, OBJECT, OPTIONS, Body, fields
from lora_trainer.api.pictures import numbers, texts
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS, OpenSet, Snapshot
from lora_trainer.config import BadInput, Problem
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset import edits
from lora_trainer.dataset.advisor import advise
from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.store import Dataset, Step

MOST_ADVICE = 200  # of a kind


@dataclass(frozen=True)
class CaptionRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/datasets/{name}/tags", self.count_tags, methods=["GET"])
        router.add_api_route("/datasets/{name}/captions", self.write_captions, methods=["PUT"])
        router.add_api_route("/datasets/{name}/edits", self.edit_captions, methods=["POST"])
        router.add_api_route("/datasets/{name}/undo", self.undo, methods=["POST"])
        router.add_api_route("/datasets/{name}/redo", self.redo, methods=["POST"])
        return router

    def count_tags(self, name: str, request: Request) -> Response:
        """The tags with their counts, the commonest first; what can be undone and redone; advice for ?trigger=, or
        for the word after which the pictures' folder is named."""
        with SETS.use(self.places.dataset(name)) as found:
            snapshot, history = found.snapshot, found.dataset.history()
        entries = snapshot.entries
        facts = {
            "pictures": len(entries),
            "captioned": sum(bool(entry.line) for entry in entries),
            **_turns(history),
            "tags": [asdict(row) for row in snapshot.counts],
            "advice": _advice(snapshot, request.query_params.get("trigger") or _trigger_word(snapshot)),
        }
        return Answer(facts)

    def write_captions(self, name: str, body: Body = OBJECT) -> Response:
        """Gives pictures, by their ids, other captions (the files' whole texts), as one step to undo."""
        given = fields(body, {"captions": dict}, required=("captions",))["captions"]
        captions = {_id(key): _text(key, text) for key, text in given.items()}
        return self._changed(name, lambda found: ("caption written", captions))

    def edit_captions(self, name: str, body: Body = OBJECT) -> Response:
        """Does one edit to all captions, or to those of `pictures` (ids), as one step to undo."""
        kinds = {"edit": str, "tags": list, "by": str, "at": str, "pictures": list}
        body = fields(body, kinds, required=("edit",))
        what, edit = _edit(body)
        ids = set(numbers(body, "pictures")) if "pictures" in body else None

        def captions(found: OpenSet) -> tuple[str, dict[int, str]]:
            every = found.dataset.captions()
            return what, edits.edited({id: every[id] for id in every if ids is None or id in ids}, edit)

        return self._changed(name, captions)

    def undo(self, name: str, body: Body = OPTIONS) -> Response:
        """Takes the last step back; `left`: pictures whose caption somebody has changed since, which keep it."""
        fields(body, {})
        return self._turned(name, Dataset.undo)

    def redo(self, name: str, body: Body = OPTIONS) -> Response:
        fields(body, {})
        return self._turned(name, Dataset.redo)

    def _changed(self, name: str, texts_of: Callable[[OpenSet], tuple[str, dict[int, str]]]) -> Response:
        folder = self.places.dataset(name)
        with SETS.use(folder) as found:
            what, captions = texts_of(found)
            step = found.dataset.change_captions(what, captions)
            turns = _turns(found.dataset.history())
        SETS.write_soon(folder)
        return Answer({"what": what, "changed": len(captions) if step else 0, "step": step, **turns})

    def _turned(self, name: str, turn: Callable[[Dataset], Step | None]) -> Response:
        folder = self.places.dataset(name)
        with SETS.use(folder) as found:
            step = turn(found.dataset)
            turns = _turns(found.dataset.history())
        SETS.write_soon(folder)
        return Answer({"step": asdict(step) if step else None, **turns})


def _turns(history: list[Step]) -> dict[str, str]:
    """What undo and redo would do, "" for nothing."""
    made = [step.what for step in history if not step.undone]
    undone = [step.what for step in history if step.undone]
    return {"undo": made[-1] if made else "", "redo": undone[0] if undone else ""}


def _edit(body: Body) -> tuple[str, edits.Edit]:
    """What an edit is called in the history, and the edit. Raises BadInput."""
    if body["edit"] not in EDITS:
        raise problem("edit", body["edit"], "is no edit", f"Use one of {', '.join(EDITS)}.")
    return EDITS[body["edit"]](body, texts(body, "tags") if "tags" in body else [])


def _remove(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    return f"removed {', '.join(named)}", edits.remove(named)


def _add(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    at = body.get("at", "end")
    if at not in ("start", "end"):
        raise problem("at", at, "is no place in a caption", "Use start or end.")
    return f"added {', '.join(named)}", edits.add(named, "start" if at == "start" else "end")


def _replace(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    if len(named) != 1 or not tags(body.get("by", "")):
        raise BadInput(Problem("tags", ", ".join(named), "cannot be replaced", 'Name one tag, and what comes "by" it.'))
    return f"replaced {named[0]} by {body['by']}", edits.replace(named[0], body["by"])


def _dedupe(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    return "removed duplicates", edits.dedupe()


def _sort(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    return "sorted", edits.sort(named)


def _trigger(body: Body, named: list[str]) -> tuple[str, edits.Edit]:
    return f"{', '.join(named)} first", edits.put_first(", ".join(named))


EDITS = {
    "remove": _remove, "add": _add, "replace": _replace, "dedupe": _dedupe, "sort": _sort, "trigger": _trigger,
}  # fmt: skip


def _trigger_word(snapshot: Snapshot) -> str:
    return next((word for entry in snapshot.entries if (word := repeats_and_class(entry.folder)[1])), "")


def _advice(snapshot: Snapshot, trigger: str) -> dict[str, Any]:
    advice = advise({entry.id: entry.line for entry in snapshot.entries if entry.line}, trigger)
    return {
        "fold": list(map(asdict, advice.fold)),
        "kept": list(map(asdict, advice.kept)),
        "one_offs": [{"tag": tag, "picture": id} for tag, id in advice.one_offs[:MOST_ADVICE]],
        "contradictions": list(map(asdict, advice.contradictions[:MOST_ADVICE])),
        "bare": advice.bare[:MOST_ADVICE],
    }


def _id(key: str) -> int:
    if not NUMBER.fullmatch(key):
        raise problem("captions", key, "is no picture's number", 'Give {"17": "the caption"}.')
    return int(key)


def _text(key: str, text: Any) -> str:
    if not isinstance(text, str):
        raise problem(f"captions.{key}", text, "must be text", "Give the whole caption.")
    return text

"""The host's LoRAs: what their files and cards say of them, their pictures, and how one is put away."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from lora_trainer.api.answers import FOR_GOOD, Answer, Refused, Route
from lora_trainer.api.bodies import OBJECT, Body, fields, number
from lora_trainer.api.places import Places
from lora_trainer.config import BadInput
from lora_trainer.config.interchange.refill import read_lora
from lora_trainer.inspecting.describe_lora import describe_lora
from lora_trainer.inspecting.header import read_header
from lora_trainer.inspecting.lora_names import is_lora
from lora_trainer.jobs.card import WEIGHT, change_card, check_weight, files_of, picture_of, read_card

ASIDE = ".deleted"
ENDING = ".deleted"  # behind each file's own ending: a host that looks into hidden folders passes over them
MOST_LORAS = 1000
MOST_KNOWN = 10_000
SEARCHED = (  # of what a file says
    "ss_output_name",
    "ss_sd_model_name",
    "ss_base_model_version",
    "ss_network_module",
    "ss_training_comment",
    "ss_tag_frequency",
    "modelspec.architecture",
    "modelspec.trigger_phrase",
)
CARD = {  # what requests call the fields of the WebUI's card
    "weight": "preferred weight",
    "trigger": "activation text",
    "negative": "negative text",
    "description": "description",
    "notes": "notes",
}
LONGEST_SEARCHED = 20_000


@dataclass(frozen=True)
class LoraRoutes:
    """A LoRA is called by its path below the host's folder of LoRAs; of two folders that have it, by the first's."""

    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/loras", self.list_loras, methods=["GET"])
        router.add_api_route("/loras/restore", self.restore_lora, methods=["POST"])
        router.add_api_route("/loras/{path:path}/file", self.download_lora, methods=["GET"])
        router.add_api_route("/loras/{path:path}/use", self.show_use, methods=["GET"])
        router.add_api_route("/loras/{path:path}/card", self.write_card, methods=["POST"])
        router.add_api_route("/loras/{path:path}/picture", self.show_picture, methods=["GET"])
        router.add_api_route("/loras/{path:path}", self.delete_lora, methods=["DELETE"])
        return router

    def list_loras(self, request: Request) -> Response:
        """Those in which ?search= is found, the newest first; `count` of them in all. Times in seconds since 1970."""
        offset, limit = number(request, "offset", 0) or 0, number(request, "limit", MOST_LORAS, MOST_LORAS) or 0
        words = request.query_params.get("search", "").lower().split()
        found = [each for each in self._all() if _has(words, *each)]
        shown = [_shown(*each) for each in found[offset : offset + limit]]
        names = {path.name: name for name, path in reversed(self.places.host.checkpoints())}
        loras = [{**lora, "checkpoint": names.get(lora["base"], "")} for lora in shown]
        return Answer({"loras": loras, "count": len(found)})

    def show_use(self, path: str) -> Response:
        """What a prompt with this LoRA needs: as its list says it, and the card's `negative` text.

        `names` are what a prompt may already call it. `chosen`: the host makes pictures with its base model already.
        """
        file = self._lora(path)
        lora = _shown(path, file, file.stat())
        stems = {each.stem for _, each, _ in self._all()} if lora["title"] else set()
        names = [lora["name"], *({lora["title"]} - stems - {""})]
        bases = [name for name, checkpoint in self.places.host.checkpoints() if checkpoint.name == lora["base"]]
        chosen = self.places.host.current_checkpoint() in bases
        told = {name: lora[name] for name in ("name", "weight", "trigger", "negative", "base")}
        return Answer({**told, "names": names, "checkpoint": next(iter(bases), ""), "chosen": chosen})

    def write_card(self, path: str, body: Body = OBJECT) -> Response:
        """Some fields of the WebUI's card; all others on it stay."""
        given = fields(body, {name: float if name == "weight" else str for name in CARD})
        check_weight(given.get("weight"))
        change_card(self._lora(path), {CARD[name]: value for name, value in given.items()})
        return Response(status_code=204)

    def download_lora(self, path: str) -> Response:
        file = self._lora(path)
        return FileResponse(file, filename=file.name, headers={"X-Content-Type-Options": "nosniff"})

    def show_picture(self, path: str) -> Response:
        picture = picture_of(self._lora(path))
        if picture is None:
            raise Refused(404, "This LoRA has no picture.")
        return FileResponse(picture, headers={"X-Content-Type-Options": "nosniff", **FOR_GOOD})

    def delete_lora(self, path: str) -> Response:
        """Nothing is lost: the LoRA and its card are moved to `.deleted` beside it; `aside` is what restores them."""
        lora = self._lora(path)
        names = (f"{lora.stem}-{turn}" if turn > 1 else lora.stem for turn in count(1))
        aside = next(place for place in map((lora.parent / ASIDE).joinpath, names) if not place.exists())
        aside.mkdir(parents=True)
        for file in files_of(lora):
            file.rename(aside / (file.name + ENDING))
        self.places.refresh_loras()
        return Answer({"aside": (Path(path).parent / ASIDE / aside.name).as_posix()})

    def restore_lora(self, body: Body = OBJECT) -> Response:
        """Puts back what a deletion has put aside. Refused (409) where there is a file of that name again."""
        aside = self._aside(fields(body, {"aside": str}, required=("aside",))["aside"])
        files = {file: aside.parent.parent / file.name.removesuffix(ENDING) for file in aside.iterdir()}
        if taken := [target.name for target in files.values() if target.exists()]:
            raise Refused(409, f"{taken[0]} is there again. Give it another name first.")
        for file, target in files.items():
            file.rename(target)
        aside.rmdir()
        self.places.refresh_loras()
        return Response(status_code=204)

    def _all(self) -> list[tuple[str, Path, os.stat_result]]:
        """Every LoRA with its path below its folder; what goes away meanwhile is passed over."""
        found: dict[str, tuple[str, Path, os.stat_result]] = {}
        for folder in self.places.host.lora_folders():
            for file in folder.rglob("*.safetensors"):
                path = file.relative_to(folder).as_posix()
                if path not in found and not _is_hidden(path) and file.is_file():
                    found[path] = (path, file, file.stat())
        return sorted(found.values(), key=lambda each: (-each[2].st_mtime_ns, each[0]))

    def _lora(self, path: str) -> Path:
        """Refused (404)."""
        if path.endswith(".safetensors") and not _is_hidden(path) and (file := self._inside(path)) and file.is_file():
            return file
        raise Refused(404, f"There is no LoRA {path[:80]!r}. GET /loras lists those that are there.")

    def _aside(self, path: str) -> Path:
        folder = self._inside(path)
        if folder is None or folder.parent.name != ASIDE or not folder.is_dir():
            raise Refused(404, f"Nothing was put aside as {path[:80]!r}.")
        return folder

    def _inside(self, path: str) -> Path | None:
        """Where a folder of LoRAs has it; None where none has, or it would lie elsewhere."""
        if "\0" in path:
            return None
        for folder in (each.absolute() for each in self.places.host.lora_folders()):
            file = Path(os.path.normpath(folder / path))
            if file != folder and file.is_relative_to(folder) and file.exists():
                return file
        return None


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _has(words: list[str], path: str, file: Path, status: os.stat_result) -> bool:
    """Whether each word stands in its path, on its card, or in what the file says of itself."""
    if not words:
        return True
    card = (value for value in read_card(file).values() if isinstance(value, str))
    text = "\n".join((path, *card, _said(file, status.st_size, status.st_mtime_ns))).lower()
    return all(word in text for word in words)


@lru_cache(MOST_KNOWN)
def _said(file: Path, size: int, time: int) -> str:
    try:
        metadata, _ = read_lora(file)
    except (BadInput, OSError):
        return ""
    return "\n".join(metadata.get(key, "")[:LONGEST_SEARCHED] for key in SEARCHED)


def _shown(path: str, file: Path, status: os.stat_result) -> dict[str, Any]:
    card, facts = read_card(file), _facts(file, status.st_size, status.st_mtime_ns)
    picture = picture_of(file)
    return {
        "path": path,
        "name": file.stem,
        "file": file,
        "size": status.st_size,
        "modified": status.st_mtime,
        **facts,
        "trigger": _text(card.get("activation text")) or facts["trigger"],
        "weight": _weight(card.get("preferred weight")),
        "negative": _text(card.get("negative text")),
        "notes": _text(card.get("notes")),
        "description": _text(card.get("description")) or facts["description"],
        "picture": f"loras/{quote(path, errors='replace')}/picture?v={picture.stat().st_mtime_ns}" if picture else None,
    }


@lru_cache(MOST_KNOWN)
def _facts(file: Path, size: int, time: int) -> dict[str, Any]:
    """What the file itself says; `size` and `time` are those of the file as it is read here."""
    try:
        header = read_header(file)
    except BadInput as error:
        return {**_UNKNOWN, "trouble": error.problems[0].problem}
    if not is_lora(header.tensors):
        return {**_UNKNOWN, "trouble": "is no LoRA"}
    known, said = describe_lora(header), header.metadata
    comment = said.get("ss_training_comment", "None")
    return {
        "title": said.get("ss_output_name", ""),
        "trigger": said.get("modelspec.trigger_phrase", ""),
        "description": "" if comment == "None" else comment,
        "family": known["family"],
        "kind": known["algorithm"],
        "rank": int(next(iter(known["ranks"]), 0)),
        "base": said.get("ss_sd_model_name", ""),
        "steps": _count(said.get("ss_steps", "")),
        "epoch": _count(said.get("ss_epoch", "")),
        "tags": list(known.get("tags", ())),
        "trouble": "",
    }


_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(("title", "trigger", "description", "family", "kind", "base"), ""),
    **dict.fromkeys(("rank", "steps", "epoch"), 0),
    "tags": [],
}


def _count(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _weight(value: Any) -> float:
    """The WebUI writes 0 where its user has chosen none."""
    chosen = isinstance(value, (int, float)) and value and math.isfinite(value)
    return float(value) if chosen else WEIGHT

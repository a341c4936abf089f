"""The base models that the host has to train on, and what each of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import Answer, Route, problem
from lora_trainer.api.places import Places
from lora_trainer.config import FAMILIES, SETTINGS
from lora_trainer.inspecting.catalogue import CATALOGUE, Catalogue, Facts, stamp_of
from lora_trainer.inspecting.parts import PARTS, Found, where

SHORT_HASH = re.compile(r"\[([0-9a-f]{8,64})\]$")  # how a WebUI ends the name of a checkpoint


@dataclass(frozen=True)
class ModelRoutes:
    places: Places
    catalogue: Catalogue = CATALOGUE

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/models", self.list_models, methods=["GET"])
        router.add_api_route("/models/details", self.show_model, methods=["GET"])
        router.add_api_route("/models/parts", self.show_parts, methods=["GET"])
        router.add_api_route("/models/hash", self.show_hash, methods=["GET"])
        return router

    def list_models(self, request: Request) -> Response:
        """Each by the `name` that a config may call it; with ?refresh=1 the host looks into its folders again.

        `reading` says how many are still to be read: those have no facts yet, and will have some at a later call.
        `loaded` is the name of the one that the host makes pictures with.
        """
        host = self.places.host
        if request.query_params.get("refresh"):
            host.refresh_checkpoints()
        checkpoints = host.checkpoints()
        facts = self.catalogue.look(path for _, path in checkpoints)
        models = [self._entry(name, path, facts[path]) for name, path in checkpoints]
        reading = sum(known is None for known in facts.values())
        return Answer({"models": models, "loaded": host.current_checkpoint(), "reading": reading})

    def show_model(self, request: Request) -> Response:
        """One of them by ?name=, or any other file by its path."""
        name, path = self._named(request)
        return Answer(self._entry(name, path, self.catalogue.read(path)))

    def show_parts(self, request: Request) -> Response:
        """What a Flux base needs beside it: for each part the file that is used, what is wrong, and `where` to put one.

        ?clip_l= and the other settings of parts name files that a form names. `others` are all those that fit.
        """
        _, path = self._named(request)
        facts = self.catalogue.read(path)
        told = {"family": facts.get("family", ""), "variant": facts.get("variant", "")}
        if not told["variant"]:
            return Answer({**told, "parts": [], "others": {}})
        given = {part: self._file_of(part, request) for part in PARTS}
        found = self.places.parts(path, given)
        others = {part: list(map(str, found.others[part])) for part in PARTS}
        return Answer({**told, "parts": [self._part(part, path, found) for part in PARTS], "others": others})

    def show_hash(self, request: Request) -> Response:
        """The SHA-256 of one of them, for which the whole file is read."""
        name, path = self._named(request)
        if not path.is_file():
            raise problem("name", name, "there is no such file", "Choose one of GET /models.")
        return Answer({"sha256": self.catalogue.hash(path)})

    def _named(self, request: Request) -> tuple[str, Path]:
        name = request.query_params.get("name", "")
        found = self.places.base_model(name) if name else ""
        return name, self.places.source(found, "name")

    def _file_of(self, part: str, request: Request) -> str:
        named = request.query_params.get(part, "")
        return str(self.places.source(named, part)) if named else ""

    def _part(self, part: str, base: Path, found: Found) -> dict[str, str]:
        fault = next((problem for problem in found.problems if problem.setting == part), None)
        return {
            "setting": part,
            "title": SETTINGS[part].label,
            "file": str(found.files.get(part, "")),
            "where": str(where(part, base, self.places.host.part_folders())),
            "problem": fault.problem if fault else "",
            "remedy": fault.remedy if fault else "",
        }

    def _entry(self, name: str, path: Path, facts: Facts | None) -> dict[str, Any]:
        """`kind` and what else `describe` tells; `trainable`: whether it is a base model that can be trained on."""
        stamp, told = stamp_of(path), SHORT_HASH.search(name)
        about = {
            "name": name,
            "file": str(path),
            "size_bytes": stamp[0] if stamp else 0,
            "modified": stamp[1] / 1e9 if stamp else 0,
            "hash": self.catalogue.known_hash(path) or (told[1] if told else ""),
            "known": facts is not None,
        }
        facts = facts or {}
        trainable = facts.get("kind") == "base model" and facts.get("family") in FAMILIES
        return {**facts, **about, "trainable": trainable}

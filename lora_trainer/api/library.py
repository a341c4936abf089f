"""What the host has: LoRAs, and base models to train on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Route
from lora_trainer.api.places import Places


@dataclass(frozen=True)
class LibraryRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/loras", self.list_loras, methods=["GET"])
        router.add_api_route("/models", self.list_models, methods=["GET"])
        return router

    def list_loras(self) -> Response:
        """Sizes in bytes, times in seconds since 1970."""
        return Answer({"loras": [_facts(path.stem, path) for path in self.places.loras() if path.is_file()]})

    def list_models(self) -> Response:
        """The base models; a config may name one by its `name` or by its `file`."""
        return Answer({"models": [{"name": name, "file": path} for name, path in self.places.host.checkpoints()]})


def _facts(name: str, path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"name": name, "file": path, "size": status.st_size, "modified": status.st_mtime}

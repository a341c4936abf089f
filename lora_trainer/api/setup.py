"""The training packages: whether they are there, how far their installation is, and a way to start it."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Route
from lora_trainer.api.bodies import OPTIONS, Body, fields
from lora_trainer.installing import Installation

THERE = {"state": "ready", "line": "", "share": 1.0, "since": 0.0, "lines": []}


@dataclass(frozen=True)
class SetupRoutes:
    """`installation`: None where whoever made the host has seen to the packages."""

    installation: Installation | None

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/setup", self.show_setup, methods=["GET"])
        router.add_api_route("/setup", self.install, methods=["POST"])
        return router

    def show_setup(self) -> Response:
        """`state` is looking, missing, installing, failed or ready; `line` says it in words; `lines`: the last ones."""
        return Answer(self.installation.facts() if self.installation else THERE)

    def install(self, body: Body = OPTIONS) -> Response:
        """Begins to install what is missing (202), unless that is going on or all is there (200).

        With `again`, what is there too, as it may be damaged.
        """
        again = fields(body, {"again": bool}).get("again", False)
        if self.installation is None:
            return self.show_setup()
        self.installation.start(again)
        facts = self.installation.facts()
        return Answer(facts, 200 if facts["state"] == "ready" else 202)

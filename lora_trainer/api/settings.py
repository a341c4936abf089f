"""The settings themselves: their JSON Schema, and what is to be said of a config before it becomes a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Route
from lora_trainer.api.bodies import OBJECT, Body, fields
from lora_trainer.api.jobs import WORK, read_work
from lora_trainer.api.places import Places
from lora_trainer.config import BadInput, notices, schema
from lora_trainer.jobs.queue import Queue


@dataclass(frozen=True)
class SettingRoutes:
    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/config/schema", self.show_schema, methods=["GET"])
        router.add_api_route("/config/check", self.check_config, methods=["POST"])
        return router

    def show_schema(self) -> Response:
        return Answer(schema())

    def check_config(self, body: Body = OBJECT) -> Response:
        """What POST /jobs would refuse, what is worth saying, and how long it will take and how much memory."""
        body = fields(body, WORK, required=("config",))
        try:
            work = read_work(body, self.places)
        except BadInput as error:
            return Answer({"problems": list(map(asdict, error.problems)), "notices": [], "estimate": None})
        found = self.queue.check(work)
        if found:
            return Answer({"problems": list(map(asdict, found)), "notices": [], "estimate": None})
        estimate = asdict(self.queue.estimate(work.config)) if work.train else None
        told = list(map(asdict, notices(work.config)))
        return Answer({"problems": [], "notices": told, "estimate": estimate})

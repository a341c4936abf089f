"""The settings themselves: their JSON Schema, and what is to be said of a config before it becomes a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Route
from lora_trainer.api.bodies import OBJECT, Body, fields
from lora_trainer.api.family import is_full_size, with_family
from lora_trainer.api.jobs import WORK, read_work
from lora_trainer.api.places import Places
from lora_trainer.api.steps import known_steps
from lora_trainer.config import BadInput, Config, Problem, idle, notices, schema
from lora_trainer.jobs.checks import family_of
from lora_trainer.jobs.disk import disk_mb
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
        """What POST /jobs would refuse, what is worth saying, how many steps it has, how long and how much memory.

        With `quick` the pictures are not looked at, but taken as the dataset's index has them. `idle` are settings that
        mean nothing with these values, null where the values cannot be read.
        """
        body = fields(body, {**WORK, "quick": bool})
        try:
            work = read_work(body, self.places)
        except BadInput as error:
            return _found(error.problems)
        quick = body.get("quick", False)
        problems = self.queue.check(work, look=not quick)
        told = [notice for notice in notices(work.config) if "form" not in body or notice.setting != "crop"]
        config = with_family(work.config)
        steps = known_steps(config, self.places) if quick and not problems else None
        known = work.train and not problems and (steps is not None or not quick)
        return _found(problems, told, self._estimate(config, steps) if known else None, steps, idle(config))

    def _estimate(self, config: Config, steps: int | None) -> dict[str, Any]:
        disk = disk_mb(config, family_of(config), steps) if is_full_size(config) else None
        return {**asdict(self.queue.estimate(config, steps)), "disk_mb": disk}


def _found(
    problems: Sequence[Problem],
    notices: Sequence[Problem] = (),
    estimate: Mapping[str, Any] | None = None,
    steps: int | None = None,
    idle: Sequence[str] | None = None,
) -> Response:
    return Answer(
        {
            "problems": list(map(asdict, problems)),
            "notices": [] if problems else list(map(asdict, notices)),
            "estimate": estimate,
            "steps": steps,
            "idle": idle,
        }
    )

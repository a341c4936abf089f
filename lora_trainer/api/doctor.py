"""The doctor's round through a set, as a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Route
from lora_trainer.api.aside import told_by
from lora_trainer.api.bodies import OBJECT, Body, fields
from lora_trainer.api.cuts import only
from lora_trainer.api.family import with_family
from lora_trainer.api.jobs import read_config
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS
from lora_trainer.api.tasks import TASKS, Task, started
from lora_trainer.config import BadInput, Config, problems

SETTINGS_OF_LOOKS = (
    "family", "resolution", "buckets", "bucket_step", "min_bucket", "max_bucket", "bucket_no_upscale",
    "max_token_length", "t5_length", "t5_tokenizer",
)  # fmt: skip


@dataclass(frozen=True)
class DoctorRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/datasets/{name}/doctor", self.examine_set, methods=["POST"])
        return router

    def examine_set(self, name: str, body: Body = OBJECT) -> Response:
        """A task: each picture is looked at as it would be trained; what stands out is said, with what to do."""
        body = fields(body, {"form": dict, "config": dict})
        folder = self.places.dataset(name)
        given = read_config(only(body, (*SETTINGS_OF_LOOKS, "base_model")), self.places)
        if given.t5_tokenizer:
            self.places.source(given.t5_tokenizer, "t5_tokenizer")
        config = with_family(given)
        if wrong := [problem for problem in problems(config) if problem.setting in SETTINGS_OF_LOOKS]:
            raise BadInput(wrong)
        words = ("doctor", str(folder), "--json", "--progress", "--set", *_changes(config))
        python = self.places.host.python
        return started(TASKS.start("doctor", name, lambda task: _examine(task, folder, python, words)))


def _examine(task: Task, folder: Path, python: str, words: tuple[str, ...]) -> dict[str, Any]:
    notices = SETS.settle(folder)
    result: dict[str, Any] = {}
    for result in told_by(task, python, *words):
        if "done" in result:
            task.tell(result["done"], result["of"], "looking")
    with SETS.use(folder) as found:
        ids = {str(found.dataset.picture(entry)): entry.id for entry in found.snapshot.entries}
    findings = [_finding(finding, ids) for finding in result["findings"]]
    return {"pictures": result["pictures"], "findings": findings, "notices": [*notices, *result["notices"]]}


def _finding(finding: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """With the pictures' ids, beside the names of its files."""
    return {
        **finding,
        "files": [Path(path).name for path in finding["files"]],
        "pictures": [ids[path] for path in finding["files"] if path in ids],
        "leave_out": [ids[path] for path in finding["leave_out"] if path in ids],
    }


def _changes(config: Config) -> Iterator[str]:
    """The settings as the command line takes them."""
    for name in SETTINGS_OF_LOOKS:
        value = getattr(config, name)
        if isinstance(value, tuple):
            value = "x".join(map(str, value))
        yield f"{name}={'none' if value is None else value}"

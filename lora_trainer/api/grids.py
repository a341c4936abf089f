"""Grids: what a finished LoRA does to its base, at several strengths and by several prompts, drawn by a job."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import Answer, Refused, Route, problem
from lora_trainer.api.bodies import OBJECT, Body, fields
from lora_trainer.api.places import Places
from lora_trainer.config import SETTINGS, BadInput, Config
from lora_trainer.config.interchange import import_files
from lora_trainer.inspecting.describe_lora import describe_lora
from lora_trainer.inspecting.header import Header, read_header
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

WEIGHTS = (0.7, 0.8, 1.0)
GRID = {"lora": str, "base_model": str, "weights": list, "prompts": list, "first": bool}
OF_THE_TRAINING = {"trigger_word", "prediction_type", "zero_terminal_snr", "clip_skip"}
MOST_TAGS = 5  # that stand for a prompt where the LoRA says nothing better


@dataclass(frozen=True)
class GridRoutes:
    """A LoRA is called by its path below the host's folder of LoRAs, or by its name."""

    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/loras/grid", self.suggest_grid, methods=["GET"])
        router.add_api_route("/loras/grid", self.add_grid, methods=["POST"])
        return router

    def suggest_grid(self, request: Request) -> Response:
        """What is drawn of ?lora= where nothing else is said: its own training's base and prompts, usual weights."""
        config = drawn_with(lora_called(request.query_params.get("lora", ""), self.places), self.places)
        base = base_name(config, self.places)
        return Answer({"base_model": base, "prompts": prompts_of(config), "weights": WEIGHTS})

    def add_grid(self, body: Body = OBJECT) -> Response:
        """201 with the queued job, 422 with every problem. Its last sample is the sheet."""
        given = fields(body, GRID, required=("lora",))
        config = drawn_with(lora_called(given["lora"], self.places), self.places)
        if "base_model" in given:
            config = replace(config, base_model=self.places.base_model(given["base_model"]))
        if "prompts" in given:
            config = replace(config, preview_prompts=of_kind(given, "prompts", "texts", str))
        weights = tuple(map(float, of_kind({"weights": WEIGHTS, **given}, "weights", "numbers", int, float)))
        work = self.places.inside(Work(config, train=False, weights=weights))
        job = self.queue.add(work, given.get("first", False))
        return Answer(asdict(job), 201, {"Location": f"jobs/{job.id}"})


def lora_called(name: str, places: Places) -> Path:
    """A LoRA by its path below the host's folder of LoRAs, or by its name. Refused (404)."""
    for folder in places.host.lora_folders():
        for path in places.loras():
            if path.is_relative_to(folder) and name in (path.relative_to(folder).as_posix(), path.stem):
                return path
    raise Refused(404, f"There is no LoRA {name[:80]!r}. GET /loras lists those that are there.")


def drawn_with(lora: Path, places: Places) -> Config:
    """The previews and the base of the LoRA's own training, as far as its file tells them and the base is here."""
    header = read_header(lora)
    config = replace(_trained_with(lora), start_lora=str(lora))
    base = places.base_model(header.metadata.get("ss_sd_model_name", ""))
    here = {str(path) for _, path in places.host.checkpoints()}
    return replace(config, base_model=base if base in here else "", preview_prompts=_prompts(header, config))


def base_name(config: Config, places: Places) -> str:
    """What the host calls the config's base model; "" where it does not know it."""
    return next((name for name, path in places.host.checkpoints() if str(path) == config.base_model), "")


def prompts_of(config: Config) -> list[str]:
    return [prompt.replace("{trigger}", config.trigger_word) for prompt in config.preview_prompts]


def _trained_with(lora: Path) -> Config:
    """The settings that the LoRA was trained with, of those that a grid uses; the defaults where it tells none."""
    try:
        told = import_files([lora]).config
    except BadInput:
        return Config()
    used = [name for name, row in SETTINGS.items() if row.panel == "previews" or name in OF_THE_TRAINING]
    return Config(**{name: getattr(told, name) for name in used})


def _prompts(header: Header, config: Config) -> tuple[str, ...]:
    tags = ", ".join(list(describe_lora(header).get("tags", ()))[:MOST_TAGS])
    said = (header.metadata.get("modelspec.trigger_phrase", ""), tags)
    return config.preview_prompts or tuple(filter(None, said))[:1]


def of_kind(body: Body, name: str, called: str, *kinds: type) -> tuple[Any, ...]:
    """A list whose items are all of one of these kinds. Raises BadInput."""
    values = body[name]
    if not values or not all(isinstance(value, kinds) and not isinstance(value, bool) for value in values):
        raise problem(name, values, f"must be a list of {called}", "Give at least one.")
    return tuple(values)

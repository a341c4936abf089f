"""Comparisons: queued all at once, looked at side by side as their pictures come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Refused, Route, gathered
from lora_trainer.api.bodies import NUMBER, OBJECT, Body, fields
from lora_trainer.api.history import in_columns, seed_words, sheet_answer
from lora_trainer.api.jobs import read_work
from lora_trainer.api.places import Places
from lora_trainer.config import SETTINGS, BadInput, Problem
from lora_trainer.jobs.comparisons import (
    COMPARABLE,
    MOST_JOBS,
    Cell,
    Comparison,
    compare,
    comparison,
    comparisons,
    forget,
    read_axes,
)
from lora_trainer.jobs.history import History, Moment, history
from lora_trainer.jobs.job import Job, NoSuchJob
from lora_trainer.jobs.queue import Queue


@dataclass(frozen=True)
class ComparisonRoutes:
    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/comparisons", self.add_comparison, methods=["POST"])
        router.add_api_route("/comparisons", self.list_comparisons, methods=["GET"])
        router.add_api_route("/comparisons/settings", self.list_settings, methods=["GET"])
        router.add_api_route("/comparisons/{id}", self.show_comparison, methods=["GET"])
        router.add_api_route("/comparisons/{id}", self.forget_comparison, methods=["DELETE"])
        router.add_api_route("/comparisons/{id}/sheet", self.show_sheet, methods=["GET"])
        return router

    def add_comparison(self, body: Body = OBJECT) -> Response:
        """`axes`: one or two of {"setting", "values"}; 201 with a queued job for each combination, or 422 and none."""
        body = fields(body, {"config": dict, "form": dict, "axes": list}, required=("axes",))
        faults: list[Problem] = []
        with gathered(faults):
            axes = read_axes(body.pop("axes"))
        with gathered(faults):
            work = read_work(body, self.places)
        if faults:
            raise BadInput(faults)
        return Answer(self._shown(compare(self.queue, work, axes)), 201)

    def list_comparisons(self) -> Response:
        """The newest first."""
        return Answer({"comparisons": [self._shown(each) for each in comparisons(self.queue)]})

    def list_settings(self) -> Response:
        """The settings that can be compared, in `most` trainings at most."""
        return Answer({"settings": COMPARABLE, "most": MOST_JOBS})

    def show_comparison(self, id: str) -> Response:
        return Answer(self._shown(self._comparison(id)))

    def forget_comparison(self, id: str) -> Response:
        """Its jobs stay, in the queue and in the history."""
        forget(self.queue, self._comparison(id).id)
        return Response(status_code=204)

    def show_sheet(self, id: str) -> Response:
        """One PNG: of one setting a row for each value and a column for each prompt; of two, values by values."""
        found = self._comparison(id)
        looks = [self._look(cell) for cell in found.cells]
        prompts = _prompts(looks)
        if len(found.axes) == 1:
            rows = [(cell.values[0], look.paths(prompts)) for cell, look in zip(found.cells, looks)]
            return sheet_answer(prompts, rows, found.name, [_told(found, looks)])
        table = {cell.values: look.paths(prompts) for cell, look in zip(found.cells, looks)}
        below = [_told(found, looks), *(f"Prompt {number}: {prompt}" for number, prompt in enumerate(prompts, 1))]
        return sheet_answer(*_crossed(found, prompts, table), found.name, below)

    def _comparison(self, id: str) -> Comparison:
        found = comparison(self.queue, int(id)) if NUMBER.fullmatch(id) else None
        if found is None:
            raise Refused(404, f"There is no comparison {id[:80]!r}.")
        return found

    def _shown(self, found: Comparison) -> dict[str, Any]:
        """`pictures`: file names of the job's samples, one for each of the `prompts`, drawn after `epoch` epochs."""
        looks = [self._look(cell) for cell in found.cells]
        prompts = _prompts(looks)
        cells = [{"values": cell.values, **look.shown(prompts)} for cell, look in zip(found.cells, looks)]
        axes = [{**asdict(axis), "label": SETTINGS[axis.setting].label} for axis in found.axes]
        return {**asdict(found), "axes": axes, "prompts": prompts, "cells": cells}

    def _look(self, cell: Cell) -> Look:
        try:
            job = self.queue.job(cell.job)
        except NoSuchJob:
            return Look(None, Path(), History([], []), None)
        folder = self.queue.job_folder(job.id)
        made = history(folder)
        newest = next((moment for moment in reversed(made.moments) if moment.step and moment.previews), None)
        return Look(job, folder.samples, made, newest)


@dataclass(frozen=True)
class Look:
    """What one of the trainings has made so far: its newest previews since it began, if it has any."""

    job: Job | None
    folder: Path
    made: History
    newest: Moment | None

    def names(self, prompts: Sequence[str]) -> list[str | None]:
        names = in_columns(self.newest, self.made) if self.newest else []
        return [*names[: len(prompts)], *[None] * (len(prompts) - len(names))]

    def paths(self, prompts: Sequence[str]) -> list[Path | None]:
        return [self.folder / name if name else None for name in self.names(prompts)]

    def shown(self, prompts: Sequence[str]) -> dict[str, Any]:
        job = vars(self.job) if self.job else None
        epoch = self.newest.epoch if self.newest else None
        return {"job": job, "epoch": epoch, "pictures": self.names(prompts)}


def _prompts(looks: Sequence[Look]) -> list[str]:
    return max((look.made.prompts for look in looks), key=len, default=[])


def _told(found: Comparison, looks: Sequence[Look]) -> str:
    """What is compared, and with which seed the pictures were drawn."""
    seed = next((words for look in looks if (words := seed_words(look.made))), "")
    return f"{found.name}: {' x '.join(SETTINGS[axis.setting].label for axis in found.axes)}. {seed}"


def _crossed(
    found: Comparison, prompts: Sequence[str], table: Mapping[tuple[str, ...], Sequence[Path | None]]
) -> tuple[list[str], list[tuple[str, list[Path | None]]]]:
    """The columns and rows of a sheet: the second setting's values across, the first one's down, prompt by prompt."""
    down, across = found.axes
    rows = []
    for number in range(len(prompts)):
        for value in down.values:
            label = f"{value}, prompt {number + 1}" if len(prompts) > 1 else value
            rows.append((label, [table[value, each][number] for each in across.values]))
    return [f"{SETTINGS[across.setting].label}: {each}" for each in across.values], rows

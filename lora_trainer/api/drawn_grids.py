"""Grids that the host draws itself, so that what is compared is what its users get: kept until they are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from lora_trainer.api.answers import FOR_GOOD, Answer, Refused, Route, gathered, problem
from lora_trainer.api.bodies import NUMBER, OBJECT, Body, fields, job_number
from lora_trainer.api.grid_subjects import Subject, of_job, of_lora, read_prompts, read_weights
from lora_trainer.api.grids import WEIGHTS, base_name, lora_called
from lora_trainer.api.history import sheet_answer
from lora_trainer.api.places import Places
from lora_trainer.api.tasks import TASKS, Task
from lora_trainer.config import BadInput, Problem
from lora_trainer.hosts.host import Drawing, HostProblem, draws_nothing
from lora_trainer.jobs.grids import Cell, Grid, GridLora, Grids
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import PAUSE_SECONDS, NotFreed, Supervisor

KIND = "grid"  # of the tasks that draw
MOST_CELLS = 400
GIVEN = {"job": int, "files": list, "lora": str, "base_model": str, "weights": list, "prompts": list}


@dataclass(frozen=True)
class DrawnGridRoutes:
    """A grid is of a job's LoRAs, by their files' names, or of one in the host's folder, by its path below that."""

    queue: Queue
    supervisor: Supervisor | None
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/grids", self.list_grids, methods=["GET"])
        router.add_api_route("/grids", self.add_grid, methods=["POST"])
        router.add_api_route("/grids/suggestion", self.suggest_grid, methods=["GET"])
        router.add_api_route("/grids/{id}", self.show_grid, methods=["GET"])
        router.add_api_route("/grids/{id}", self.delete_grid, methods=["DELETE"])
        router.add_api_route("/grids/{id}/draw", self.draw_grid, methods=["POST"])
        router.add_api_route("/grids/{id}/sheet", self.show_sheet, methods=["GET"])
        router.add_api_route("/grids/{id}/pictures/{name}", self.show_picture, methods=["GET"])
        return router

    def list_grids(self, request: Request) -> Response:
        """The newest first: all, or those of ?job=, or of ?lora=; `draws`: whether this host can draw one."""
        found = self._grids.all()
        for name in ("job", "lora"):
            if (wanted := request.query_params.get(name)) is not None:
                found = [grid for grid in found if str(getattr(grid, name) or "") == wanted]
        return Answer({"draws": self.places.host.draws, "grids": list(map(self._shown, found))})

    def suggest_grid(self, request: Request) -> Response:
        """What is drawn of ?job= or ?lora= where nothing else is said."""
        asked = request.query_params
        subject = self._subject(job_number(asked["job"]) if "job" in asked else None, asked.get("lora"))
        return Answer(
            {
                "name": subject.name,
                "base_model": base_name(subject.config, self.places) or self.places.host.current_checkpoint(),
                "loras": [{"file": lora.file, "epoch": lora.epoch, "step": lora.step} for lora in subject.loras],
                "weights": WEIGHTS,
                "prompts": subject.prompts,
            }
        )

    def add_grid(self, body: Body = OBJECT) -> Response:
        """202 with the grid, which is being drawn by its `task`; 422 with every problem."""
        given = fields(body, GIVEN)
        subject = self._subject(given.get("job"), given.get("lora"))
        asked = self._asked(subject, given)
        self._check_host()
        return self._draw(self._grids.add(asked))

    def show_grid(self, id: str) -> Response:
        return Answer(self._shown(self._grid(id)))

    def draw_grid(self, id: str) -> Response:
        """Draws what is missing of it: 202."""
        grid = self._grid(id)
        self._check_host()
        return self._draw(grid)

    def delete_grid(self, id: str) -> Response:
        """Refused (409) while it is being drawn."""
        grid = self._grid(id)
        if task := _drawing(grid):
            raise Refused(409, f"This grid is being drawn (task {task.id}). Cancel that first.")
        self._grids.remove(grid.id)
        return Response(status_code=204)

    def show_picture(self, id: str, name: str) -> Response:
        grid = self._grid(id)
        if name not in self._grids.there(grid):
            raise Refused(404, f"There is no picture {name[:80]!r} in this grid.")
        headers = {"X-Content-Type-Options": "nosniff", **FOR_GOOD}
        return FileResponse(self._grids.folder(grid.id) / name, headers=headers)

    def show_sheet(self, id: str) -> Response:
        """One PNG: of one LoRA a row for each weight and a column for each prompt, of several epochs by weights."""
        grid = self._grid(id)
        columns, rows = _sheet(grid, lambda cell: self._grids.folder(grid.id) / cell.file)
        drawn = [_moment(grid, grid.loras[0])] if len(grid.loras) == 1 and grid.job is not None else []
        below = [f"{', '.join([grid.name, *drawn])} in {grid.base_model}. Seed of the pictures: {grid.seed}."]
        if len(grid.loras) > 1:
            below += (f"Prompt {number}: {prompt}" for number, prompt in enumerate(grid.prompts, 1))
        return sheet_answer(columns, rows, f"{grid.name}-grid", below)

    @property
    def _grids(self) -> Grids:
        return Grids(self.queue.folder)

    def _grid(self, id: str) -> Grid:
        grid = self._grids.get(int(id)) if NUMBER.fullmatch(id) else None
        if grid is None:
            raise Refused(404, f"There is no grid {id[:80]!r}. GET /grids lists those that are there.")
        return grid

    def _shown(self, grid: Grid) -> dict[str, Any]:
        there, task = set(self._grids.there(grid)), _drawing(grid)
        address = f"grids/{grid.id}/pictures"
        cells = [
            {**asdict(cell), "picture": f"{address}/{cell.file}?v={grid.created_at}" if cell.file in there else None}
            for cell in grid.cells()
        ]
        return {**asdict(grid), "cells": cells, "drawn": len(there), "task": task and task.id}

    # ---- what is to be drawn

    def _subject(self, job: int | None, lora: str | None) -> Subject:
        if (job is None) == (lora is None):
            raise problem("lora", lora, "must be named, or a job instead", "Give one of the two.")
        return of_job(job, self.queue) if job is not None else of_lora(lora or "", self.places)

    def _asked(self, subject: Subject, given: Body) -> Grid:
        """BadInput with all that is wrong with it."""
        faults: list[Problem] = []
        with gathered(faults):
            prompts = read_prompts(given.get("prompts", subject.prompts))
        with gathered(faults):
            weights = read_weights(given.get("weights", WEIGHTS))
        with gathered(faults):
            loras = subject.chosen(given.get("files"))
        base = given.get("base_model", base_name(subject.config, self.places))
        if base not in dict(self.places.host.checkpoints()):
            faults.append(Problem("base_model", base, "is no base model of the WebUI", "Choose one from the list."))
        if faults:
            raise BadInput(faults)
        grid = subject.grid(base, loras, weights, prompts)
        if (count := len(grid.cells())) > MOST_CELLS:
            raise problem("files", count, f"make more than {MOST_CELLS} pictures", "Choose fewer of them.")
        return grid

    # ---- drawing

    def _check_host(self) -> None:
        if not self.places.host.draws:
            raise draws_nothing(self.places.host.name)
        if busy := next((task for task in TASKS.all() if (task.kind, task.state) == (KIND, "running")), None):
            raise Refused(409, f"Another grid is being drawn (task {busy.id}). Wait for it, or cancel it.")

    def _draw(self, grid: Grid) -> Response:
        files = self._files(grid)
        task = TASKS.start(KIND, _key(grid), lambda task: self._draw_cells(grid, files, task))
        return Answer({"grid": self._shown(grid), "task": task.facts()}, 202, {"Location": f"grids/{grid.id}"})

    def _draw_cells(self, grid: Grid, files: list[Path], task: Task) -> dict[str, Any]:
        cells = grid.cells()
        task.ending = self.places.host.stop_drawing
        with self._gpu():
            for number, cell in enumerate(cells):
                task.tell(number, len(cells), "drawing")
                picture = self._grids.folder(grid.id) / cell.file
                if not picture.is_file():
                    self._draw_cell(grid.drawing(cell, files), picture, task)
        task.tell(len(cells), len(cells))
        return {"grid": grid.id}

    def _draw_cell(self, drawing: Drawing, picture: Path, task: Task) -> None:
        try:
            self.places.host.draw(drawing, picture)
        except HostProblem:
            task.check()  # it was asked to stop, and has heeded that
            raise

    def _files(self, grid: Grid) -> list[Path]:
        """Where its LoRAs are. Refused (409) where one is gone, or is another one since."""
        there = self.queue.loras(grid.job) if grid.job is not None else [lora_called(grid.lora, self.places)]
        files = {path.name: path for path in there}
        for lora in grid.loras:
            if lora.file not in files:
                raise Refused(409, f"The LoRA {lora.file} is not there any more. What is drawn of the grid stays.")
            if files[lora.file].stat().st_mtime_ns != lora.changed:
                raise Refused(409, f"The LoRA {lora.file} has been changed since. Draw another grid with it.")
        return [files[lora.file] for lora in grid.loras]

    @contextmanager
    def _gpu(self) -> Iterator[None]:
        """A training pauses once for all of its pictures, not at each; without one that runs here, nothing does."""
        with ExitStack() as held:
            if self.supervisor:
                with suppress(NotFreed):
                    held.enter_context(self.supervisor.gpu_for_host(PAUSE_SECONDS))
            yield


def _key(grid: Grid) -> str:
    return f"grid {grid.id}"


def _drawing(grid: Grid) -> Task | None:
    """The task that is at work on it."""
    return next((task for task in TASKS.all(_key(grid)) if task.state == "running"), None)


def _sheet(grid: Grid, path: Callable[[Cell], Path]) -> tuple[list[str], list[tuple[str, list[Path | None]]]]:
    """The columns' titles, and each row's label and pictures."""
    prompts, weights = range(len(grid.prompts)), range(len(grid.weights))
    words = [f"{weight:g}" for weight in grid.weights]
    rows: list[tuple[str, list[Path | None]]] = []
    if len(grid.loras) == 1:
        rows.append(("without", [path(Cell(prompt)) for prompt in prompts]))
        rows += [(words[weight], [path(Cell(prompt, 0, weight)) for prompt in prompts]) for weight in weights]
        return list(grid.prompts), rows
    for prompt in prompts:
        for number, lora in enumerate(grid.loras):
            pictures = [path(Cell(prompt)), *(path(Cell(prompt, number, weight)) for weight in weights)]
            rows.append((_label(grid, prompt, lora), [*pictures]))
    return ["without", *words], rows


def _label(grid: Grid, prompt: int, lora: GridLora) -> str:
    moment = _moment(grid, lora)
    return f"prompt {prompt + 1}, {moment}" if len(grid.prompts) > 1 else moment


def _moment(grid: Grid, lora: GridLora) -> str:
    """When in its training it was saved, as far as it takes to tell it from the grid's others."""
    if not lora.epoch:
        return lora.file.removesuffix(".safetensors")
    alone = [other.epoch for other in grid.loras].count(lora.epoch) == 1
    return f"epoch {lora.epoch}" if alone else f"epoch {lora.epoch}, step {lora.step}"

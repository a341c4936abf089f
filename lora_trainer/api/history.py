"""What a job has made, as a table: a moment of its training for each row, a prompt for each column."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from lora_trainer.api.answers import Answer, Refused, Route
from lora_trainer.api.bodies import job_number
from lora_trainer.config import dump_toml
from lora_trainer.jobs.history import History, Moment, history
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.queue import Queue

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class HistoryRoutes:
    queue: Queue

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/jobs/{id}/history", self.show_history, methods=["GET"])
        router.add_api_route("/jobs/{id}/contact_sheet", self.show_sheet, methods=["GET"])
        router.add_api_route("/jobs/{id}/config.toml", self.show_toml, methods=["GET"])
        return router

    def show_history(self, id: str) -> Response:
        """`moments`, the earliest first: in `previews` a file for each of the `prompts`, null where none is there."""
        job = self._job(id)
        made = history(self.queue.job_folder(job.id))
        moments = [_shown(moment, made) for moment in made.moments]
        return Answer({"job": vars(job), "prompts": made.prompts, "seed": _seed(made), "moments": moments})

    def show_sheet(self, id: str) -> Response:
        """A PNG with all previews and the words to them."""
        job = self._job(id)
        folder = self.queue.job_folder(job.id)
        made = history(folder)
        drawn = [moment for moment in made.moments if moment.previews]
        rows = [(_label(moment), _paths(folder.samples, in_columns(moment, made))) for moment in drawn]
        return sheet_answer(made.prompts, rows, job.name, [f"{job.name}, trained on {job.base}. {seed_words(made)}"])

    def show_toml(self, id: str) -> Response:
        return PlainTextResponse(dump_toml(self.queue.work(self._job(id).id).config))

    def _job(self, id: str) -> Job:
        return self.queue.job(job_number(id))


def sheet_answer(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Path | None]]], name: str, below: Sequence[str]
) -> Response:
    """The pictures as one PNG to be downloaded as NAME.png. Refused (404) where there is none that can be read."""
    from lora_trainer.sheets.contact_sheet import cell_for, contact_sheet

    with ExitStack() as opened:
        pictures = [(label, [_opened(path, opened) for path in paths]) for label, paths in rows]
        first = next((picture for _, row in pictures for picture in row if picture), None)
        if first is None:
            raise Refused(404, "There are no pictures yet.")
        file = io.BytesIO()
        cell = cell_for(first.size, len(rows) * len(columns))
        contact_sheet(columns, pictures, cell, below).save(file, "PNG")
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}.png"
    return Response(file.getvalue(), media_type="image/png", headers={"Content-Disposition": disposition})


def in_columns(moment: Moment, made: History) -> list[str | None]:
    """Its previews, one for each prompt."""
    return [moment.previews.get(number) for number in range(len(made.prompts))]


def _shown(moment: Moment, made: History) -> dict[str, Any]:
    return {
        "step": moment.step,
        "epoch": moment.epoch,
        "previews": in_columns(moment, made),
        "loras": moment.loras,
    }


def _seed(made: History) -> int | None:
    """That of the previews, which stands at the end of their names."""
    names = (name for moment in made.moments for name in moment.previews.values())
    numbers = (Path(name).stem.rpartition("-")[2] for name in names)
    return next((int(number) for number in numbers if number.isdecimal()), None)


def seed_words(made: History) -> str:
    """A sentence, as part of a sheet's words; "" where the seed is not known."""
    seed = _seed(made)
    return "" if seed is None else f"Seed of the pictures: {seed}."


def _label(moment: Moment) -> str:
    return f"epoch {moment.epoch}, step {moment.step}" if moment.step else "baseline"


def _paths(folder: Path, names: Sequence[str | None]) -> list[Path | None]:
    return [folder / name if name else None for name in names]


def _opened(path: Path | None, opened: ExitStack) -> Image.Image | None:
    """None for a picture that is gone or damaged."""
    from PIL import Image

    try:
        return opened.enter_context(Image.open(path)) if path else None
    except OSError:
        return None

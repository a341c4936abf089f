"""What a worker does with its job's folder, from taking it to the last event."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.files import remove_temporaries, write_text
from lora_trainer.imports import UNUSED, without
from lora_trainer.jobs.card import add_card
from lora_trainer.jobs.controls import FileControl
from lora_trainer.jobs.event_log import EventWriter
from lora_trainer.jobs.events import Report
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.processes import ANOTHER_HAS_IT, die_together
from lora_trainer.jobs.publishing import publish
from lora_trainer.jobs.stops import Control
from lora_trainer.jobs.work import Work
from lora_trainer.locks import Lock, Taken
from lora_trainer.packages import activate
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.saves import names, of_job
from lora_trainer.worker.logs import Board, print_line, told_to
from lora_trainer.worker.reasons import explained

PATIENCE = 2.0  # seconds, as somebody may just be asking whether the lock is taken
_held: list[Lock] = []  # until this process ends


def work(path: Path) -> int:
    """Does the job in the folder `path`, or goes on with it, and says in its events how that ended.

    Returns 0 where it finished or was stopped, `ANOTHER_HAS_IT` where another worker has the job. What ends it
    otherwise is told as the event "failed", and raised.
    """
    folder = JobFolder(path)
    if not folder.path.is_dir():
        raise BadInput(Problem("job", str(path), "there is no such folder", "Name a job's, such as jobs/12."))
    try:
        _held.append(Lock(folder.lock).take(PATIENCE))
    except Taken:
        print(f"Another worker has the job in {path}.", file=sys.stderr)
        return ANOTHER_HAS_IT
    with EventWriter(folder.events) as events:
        report, job = told_to(events, print_line), None
        try:
            die_together()
            remove_temporaries(folder.path)  # nobody else writes here as long as the lock is held
            write_text(folder.worker, json.dumps(_this_worker(folder)))
            job = folder.read()
            carry_out(job, folder, report)
        except Exception as error:
            report("failed", **explained(error, job.config.base_model if job else ""))
            raise
    return 0


def carry_out(job: Work, folder: JobFolder, report: Report) -> None:
    """Prepares and trains as the job says, or draws. A training that has begun is not prepared for once more."""
    activate()
    control = FileControl(folder, report)
    if job.kind == "grid":
        draw_in(folder, job, control, report)
        return
    if job.prepare and not folder.run.is_file():
        from lora_trainer.worker.preparing import prepare_for

        if not prepare_for(job, control, report):
            return
    if job.train and not publish_finished(folder, job.config, report):
        train_in(folder, job.config, control, report)


def train_in(folder: JobFolder, config: Config, control: Control, report: Report) -> None:
    with without(*UNUSED):
        from lora_trainer.training.loop import train

    def told(kind: str, /, **facts: Any) -> None:
        """The end is told when the LoRA lies where the user wants it."""
        if kind == "finished":
            facts["lora"] = str(published(Path(facts["lora"]), folder, config, report))
        report(kind, **facts)

    with Board(folder.tensorboard) as board:
        train(config, told_to(told, board), control, run_folder=folder.path)


def draw_in(folder: JobFolder, job: Work, control: Control, report: Report) -> None:
    with without(*UNUSED):
        from lora_trainer.training.grid import draw_grid

    draw_grid(job.config, job.weights, folder.samples, report, control)


def publish_finished(folder: JobFolder, config: Config, report: Report) -> bool:
    """Whether the training had ended before a kill kept it from publishing, which is then done."""
    lora = of_job(folder.path, str(config.output_name)).final
    if not (folder.run.is_file() and json.loads(folder.run.read_text(encoding="utf-8")).get("finished")):
        return False
    report("finished", lora=str(published(lora, folder, config, report)))
    return True


def published(lora: Path, folder: JobFolder, config: Config, report: Report) -> Path:
    """Gives the LoRA its name in the output folder, or a numbered one where another file has come to have that name.

    Its card for the WebUI comes with it. TrainingFailed where the disk does not take it.
    """
    for place in names(Path(config.output_folder), str(config.output_name)):
        try:
            publish(lora, place.final)
        except FileExistsError:
            report("warning", message=f"{place.final.name} is in {place.folder.name} already: the LoRA gets a number.")
        except OSError as error:
            raise TrainingFailed(
                f"The LoRA is trained, but can't be put into {config.output_folder} ({error.strerror or error}).",
                "Free some space there, or give yourself the right to write there, and resume the job.",
            ) from error
        else:
            _add_card(place.final, lora, folder, report)
            return place.final
    raise AssertionError("there is always a next name")


def _add_card(published: Path, lora: Path, folder: JobFolder, report: Report) -> None:
    """Without its card the LoRA is as good: a disk that refuses it ends nothing."""
    try:
        add_card(published, lora, folder)
    except OSError as error:
        report("warning", message=f"The picture and the words for {published.name} were not written ({error}).")


def _this_worker(folder: JobFolder) -> dict[str, Any]:
    try:
        earlier = int(json.loads(folder.worker.read_text(encoding="utf-8"))["attempt"])
    except (OSError, ValueError, KeyError, TypeError):
        earlier = 0
    return {"pid": os.getpid(), "started_at": time.time(), "attempt": earlier + 1}

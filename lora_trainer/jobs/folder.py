"""A job's folder: everything that is known of the job, so that the queue can be built again from it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Problem, dump_toml, load_toml
from lora_trainer.files import write_text
from lora_trainer.jobs.work import Prepare, Work, read_prepare


@dataclass(frozen=True)
class JobFolder:
    """Its name is the job's number. A folder without `job.json` holds no job."""

    path: Path

    @property
    def id(self) -> int:
        return int(self.path.name)

    @property
    def work(self) -> Path:
        """What is to be done and when it was asked for, beside the config; never changed."""
        return self.path / "job.json"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def events(self) -> Path:
        """Written by the worker alone."""
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        """Commands to the worker."""
        return self.path / "control.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the worker for its whole life (see `locks`)."""
        return self.path / "worker.lock"

    @property
    def worker(self) -> Path:
        """Who the worker is."""
        return self.path / "worker.json"

    @property
    def log(self) -> Path:
        """What the worker printed."""
        return self.path / "log.txt"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def state(self) -> Path:
        """What a stopped training needs to go on."""
        return self.path / "state.bin"

    @property
    def models(self) -> Path:
        """Every LoRA of the job, whether published or not."""
        return self.path / "models"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def earlier(self) -> Path:
        """What attempts made before the job began anew, a numbered folder for each."""
        return self.path / "earlier"

    def write(self, work: Work, created_at: float) -> None:
        """Makes the folder. FileExistsError where it is there already, OSError where the disk refuses."""
        prepare = asdict(work.prepare) if work.prepare else None
        told = {"kind": work.kind, "created_at": created_at, "prepare": prepare, "weights": work.weights}
        self.path.mkdir(parents=True)
        write_text(self.config, dump_toml(work.config))
        write_text(self.work, json.dumps(told, ensure_ascii=False, indent=1))

    def read(self) -> Work:
        """Raises BadInput where the job's files are missing, damaged or of another version."""
        told = self._told()
        prepare: Prepare | None = None if told["prepare"] is None else read_prepare(told["prepare"])
        return Work(load_toml(self.config), prepare, told["kind"] == "train", told["weights"])

    def created_at(self) -> float:
        """In seconds since 1970. Raises BadInput as `read` does."""
        return float(self._told()["created_at"])

    def set_aside(self) -> None:
        """Lets the job begin anew: what it made goes to `earlier`, and its state, of no more use, goes away."""
        self.state.unlink(missing_ok=True)
        made = [path for path in (self.models, self.samples, self.tensorboard, self.run) if path.exists()]
        if made:
            place = next(path for path in map(self.earlier.joinpath, map(str, itertools.count(1))) if not path.exists())
            place.mkdir(parents=True)
            for path in made:
                path.rename(place / path.name)

    def _told(self) -> dict[str, Any]:
        try:
            told = json.loads(self.work.read_text(encoding="utf-8"))
            return {
                "kind": str(told["kind"]),
                "created_at": float(told["created_at"]),
                "prepare": told["prepare"],
                "weights": tuple(map(float, told.get("weights", ()))),
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = f"its {self.work.name} can't be read ({type(error).__name__})"
            raise BadInput(Problem("job", self.id, problem, "Delete the job, and add it again.")) from error


def job_folders(queue: Path) -> Iterator[JobFolder]:
    """The numbered folders of a queue's folder, in their order, whether there is a job in them or not."""
    for number in sorted(int(path.name) for path in queue.iterdir() if path.name.isdecimal() and path.is_dir()):
        yield JobFolder(queue / str(number))

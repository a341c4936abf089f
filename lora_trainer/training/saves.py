"""Where a run's files go and what they are called."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config import BadInput, Problem


@dataclass(frozen=True)
class Outputs:
    """A run's LoRAs lie in `folder`, everything else it writes in `folder/NAME-run`, or in a job's own folder."""

    folder: Path
    name: str
    job: Path | None = None

    @property
    def run_folder(self) -> Path:
        return self.job or self.folder / f"{self.name}-run"

    @property
    def state(self) -> Path:
        return self.run_folder / "state.bin"

    @property
    def previews(self) -> Path:
        return self.run_folder / ("samples" if self.job else "previews")

    @property
    def final(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def after_epoch(self, epoch: int) -> Path:
        return self.folder / f"{self.name}-{epoch:06d}.safetensors"

    def after_step(self, step: int) -> Path:
        return self.folder / f"{self.name}-step{step:08d}.safetensors"

    @property
    def taken(self) -> bool:
        """Whether a run of this name has left anything behind."""
        return bool(self.existing()) or self.run_folder.exists()

    def existing(self) -> list[Path]:
        """LoRAs that a run of this name would write over."""
        numbered = [*self.folder.glob(f"{glob_safe(self.name)}-*.safetensors")]
        ours = [path for path in numbered if _is_number(path.stem.removeprefix(f"{self.name}-"))]
        return sorted([*ours, *([self.final] if self.final.exists() else [])])


def of_job(job: Path, name: str) -> Outputs:
    """Those of a job, whose LoRAs lie in its own folder too: no other run writes there."""
    return Outputs(job / "models", name, job)


def names(folder: Path, name: str) -> Iterator[Outputs]:
    """NAME, then NAME-v2, NAME-v3 and so on."""
    yield Outputs(folder, name)
    for number in itertools.count(2):
        yield Outputs(folder, f"{name}-v{number}")


def choose_outputs(folder: Path, name: str, when_taken: str) -> Outputs:
    """The outputs of a new run. `when_taken`: "refuse" a name whose LoRAs exist, or "number" it (NAME-v2, ...)."""
    if when_taken == "number":
        return next(outputs for outputs in names(folder, name) if not outputs.taken)
    outputs = Outputs(folder, name)
    if existing := outputs.existing():
        problem = f"{existing[0].name} exists already in {folder.name or folder}"
        remedy = 'Choose another name, set overwrite = "number" to have one added, or move the old files away.'
        raise BadInput(Problem("output_name", name, problem, remedy))
    return outputs


def check_writable(folder: Path, needed_bytes: int) -> None:
    """BadInput unless `folder` takes a file and has room for `needed_bytes`. Leaves nothing behind."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        problem = f"can't be written to ({error.strerror or type(error).__name__})"
        remedy = "Choose a folder that you may write to."
        raise BadInput(Problem("output_folder", str(folder), problem, remedy)) from error
    finally:
        for made in missing:
            if made.is_dir():
                made.rmdir()
    if free < needed_bytes:
        problem = f"its disk has {free / 2**20:.0f} MiB free and the run needs about {needed_bytes / 2**20:.0f} MiB"
        remedy = "Free some space, choose another folder, or save less often (save_every_epochs, keep_last)."
        raise BadInput(Problem("output_folder", str(folder), problem, remedy))


def glob_safe(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _is_number(ending: str) -> bool:
    return ending.removeprefix("step").isdigit()

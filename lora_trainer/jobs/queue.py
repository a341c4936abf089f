"""The queue of jobs in a folder: what the tab, the API and the command line do with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Config, Problem, problems
from lora_trainer.config.file_name import following
from lora_trainer.jobs import keeping
from lora_trainer.jobs.checks import faults, is_there
from lora_trainer.jobs.controls import send
from lora_trainer.jobs.estimates import Estimate, estimate, read_measurement
from lora_trainer.jobs.event_log import EventWriter, end_of_events
from lora_trainer.jobs.folder import JobFolder, job_folders
from lora_trainer.jobs.grids import Grids
from lora_trainer.jobs.job import ACTIVE, RESUMABLE, STATUSES, UNFINISHED, Job, NoSuchJob, WrongState
from lora_trainer.jobs.rebuilding import found_jobs, new_job
from lora_trainer.jobs.store import JobStore, NameTaken, QueueFailed, SqliteStore
from lora_trainer.jobs.tail import tail
from lora_trainer.jobs.work import Work, absolute
from lora_trainer.locks import Taken, is_taken

__all__ = ["PLACES", "NoSuchJob", "Queue", "QueueFailed", "WrongState"]

PLACES = ("up", "down", "first", "last")


class Queue:
    """A folder with a numbered folder for each job, and a database of what is known of them.

    Threads may share it, and processes may have one each. Its methods raise NoSuchJob, WrongState for what a job's
    status does not allow, and QueueFailed where disk or database refuse.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is missing, and the database from the jobs' folders where that is missing or
        damaged (`notices` then says so). Raises QueueFailed."""
        self.folder = folder.absolute()
        with self._disk():
            self.folder.mkdir(parents=True, exist_ok=True)
            store = SqliteStore(self.folder / "jobs.sqlite", lambda: found_jobs(self.folder))
        self.notices = [store.notice] if store.notice else []
        self.store: JobStore = store

    @property
    def supervisor_lock(self) -> Path:
        """Held by whoever starts this queue's jobs."""
        return self.folder / "supervisor.lock"

    def close(self) -> None:
        self.store.close()

    # ---- what there is

    def jobs(
        self, status: str | Collection[str] | None = None, limit: int | None = None, before: int | None = None
    ) -> list[Job]:
        """The newest first, at most `limit`; `before` is the number of the last one seen. ValueError for no status."""
        wanted = STATUSES if status is None else (status,) if isinstance(status, str) else tuple(status)
        if unknown := [name for name in wanted if name not in STATUSES]:
            raise ValueError(f"{unknown[0]!r} is no status; there are {', '.join(STATUSES)}.")
        return self.store.jobs(wanted, limit, before)

    def line(self) -> list[Job]:
        """The running or paused job, then the queued ones in their order."""
        return self.store.line()

    def job(self, id: int) -> Job:
        return self.store.job(id)

    def work(self, id: int) -> Work:
        """What the job was given, to be done again. Raises BadInput where its files are damaged."""
        return self._known_folder(id).read()

    def job_folder(self, id: int) -> JobFolder:
        """Where a job of that number has its files, whether there is one or not."""
        return JobFolder(self.folder / str(id))

    def loras(self, id: int) -> list[Path]:
        """What the job has saved, the oldest first."""
        with self._disk():
            return _oldest_first(self._known_folder(id).models, (".safetensors",))

    def samples(self, id: int) -> list[Path]:
        """Its previews, the oldest first."""
        with self._disk():
            return _oldest_first(self._known_folder(id).samples, (".png", ".jpg", ".webp"))

    def log_tail(self, id: int, lines: int = 50) -> list[str]:
        """The last lines of what its workers printed."""
        with self._disk():
            return tail(self._known_folder(id).log, lines)

    # ---- what comes and goes

    def check(self, work: Work, look: bool = True) -> list[Problem]:
        """Everything for which `add` would refuse it; without `look`, but for what is wrong with the pictures."""
        work = absolute(work)
        found = faults(work, look)
        if not any(problem.setting in ("output_name", "dataset_name", "output_folder") for problem in found):
            taken = _taken(work, self._holders(work))
            found += [taken] if taken and work.config.overwrite == "refuse" else []
        return found

    def add(self, work: Work, first: bool = False) -> Job:
        """Queues it behind all others, or before them. BadInput with everything that stands against it.

        A name that is taken is refused, or with `overwrite` "number" becomes NAME-v2, NAME-v3 and so on.
        """
        if found := self.check(work):
            raise BadInput(found)
        work = absolute(work)
        while True:
            if work.train:
                names = chain([work.name], following(work.name))
                work = self._named(work, names if work.config.overwrite == "number" else [work.name])
            try:
                return self._added(work, first)
            except NameTaken:  # by another process, a moment ago
                if taken := work.config.overwrite == "refuse" and _taken(work, self._holders(work)):
                    raise BadInput(taken) from None

    def copy(self, id: int) -> Job:
        """Queues the same work again, under the next free name: of zdm zdm-v2, of zdm-v2 zdm-v3. BadInput as `add`."""
        work = self.work(id)
        return self.add(self._named(work, following(work.name)) if work.train else work)

    def move(self, id: int, where: str) -> Job:
        """Moves a queued job "up", "down", "first" or "last". ValueError for another word."""
        if where not in PLACES:
            raise ValueError(f"A job can be moved {', '.join(PLACES)}, not {where!r}.")
        if not self.store.move(id, where):
            raise self._wrong(id, "only a job that is queued can be moved")
        return self.job(id)

    def delete(self, id: int) -> None:
        """Forgets a job that is not at work, and removes its folder and grids. LoRAs that were published stay."""
        with self._disk():
            folder = self._known_folder(id)
            if is_taken(folder.lock) or not self.store.delete(id, [name for name in STATUSES if name not in ACTIVE]):
                raise self._wrong(id, "stop it before you delete it")
            folder.work.unlink(missing_ok=True)  # without it, the folder is no job any more
            if folder.path.exists():
                shutil.rmtree(folder.path)
            Grids(self.folder).remove_of(id)

    # ---- what a job is told

    def pause(self, id: int) -> str:
        """Like `stop`, `save`, `sample` and `resume`, returns the id of the command that its worker was sent and takes
        up at its next step (event "heeded"); "" where it took effect at once."""
        return self._send(id, "pause", "only a running job can be paused")

    def stop(self, id: int, save: bool = False) -> str:
        """Ends it with its state kept, so that it can go on; `save`: with a LoRA of what it has learned, too."""
        if self._stopped_in_line(id):
            return ""
        return self._send(id, "stop_and_save" if save else "stop", "it has ended already")

    def save(self, id: int) -> str:
        """Saves a LoRA of what it has learned."""
        return self._send(id, "save", "only a running job can save")

    def sample(self, id: int) -> str:
        """Makes previews."""
        return self._send(id, "sample", "only a running job can make previews")

    def resume(self, id: int) -> str:
        """Ends a pause; a job that was stopped, failed or was interrupted goes next, and on from its last state."""
        if self.job(id).status in ACTIVE:  # a pause may not have been taken up yet
            return self._send(id, "resume", "")
        self._requeue(id)
        return ""

    def retry(self, id: int, fresh: bool = True) -> Job:
        """The job goes next: from its beginning, or from its last state where not `fresh`."""
        with self._disk(), self.store.changing():
            if fresh and is_taken(self._known_folder(id).lock):
                raise self._wrong(id, "its worker has not ended yet")
            self._requeue(id)
            if fresh:
                self.store.change(id, ("queued",), step=0, epoch=0, loss=None)
                self.job_folder(id).set_aside()
        return self.job(id)

    def keep(
        self,
        id: int,
        file: str,
        name: str | None = None,
        weight: float | None = None,
        picture: str | None = None,
        replace: bool = False,
    ) -> Path:
        """Puts one of the job's LoRAs beside the published ones, with its card for the WebUI; returns its path.

        `name`: without the ending. `weight` and `picture`, the file name of a preview, go on its card. BadInput where
        there is no such file, or the name cannot be had; one that another LoRA of this job has, only with `replace`.
        """
        with self._disk():
            lora, target = self._to_keep(id, file, name)
            keeping.keep(self._known_folder(id), lora, target, weight, picture, replace)
        return target

    def keepable(self, id: int, file: str, name: str | None = None) -> dict[str, Any]:
        """What `keep` may be given for that file: the first free `name` from this one on, `weight` and `pictures`."""
        with self._disk():
            return keeping.suggestion(self._known_folder(id), *self._to_keep(id, file, name))

    # ---- what it takes

    def measured(self, facts: Mapping[str, Any], at: float | None = None) -> None:
        """Keeps what a worker measured (its event "measured"); facts that are none are passed over."""
        if measurement := read_measurement({"at": time.time() if at is None else at, **facts}):
            self.store.measure(measurement)

    def estimate(self, config: Config, steps: int | None = None) -> Estimate:
        """Time and memory of a training, from this machine's earlier ones. Counts the steps where they are not given,
        for which it looks at each picture."""
        if problems(config):
            return Estimate(None, None, True, "Nothing can be said while there are problems with the settings.")
        if steps is None:
            from lora_trainer.dataset.steps import count_steps

            steps = count_steps(config)
        return estimate(config, steps, self.store.measurements())

    def _to_keep(self, id: int, file: str, name: str | None) -> tuple[Path, Path]:
        """One of the job's LoRAs, and where it goes. Raises BadInput."""
        found = {path.name: path for path in self.loras(id)}
        if file not in found:
            remedy = f"Use one of: {', '.join(found)}." if found else "It has saved none yet."
            raise BadInput(Problem("file", file, f"is no LoRA of job {id}", remedy))
        name = found[file].stem if name is None else name
        if fault := keeping.name_fault(name):
            raise BadInput(Problem("name", name, fault, "Use a plain name such as my_character."))
        return found[file], Path(self.job(id).output_folder, f"{name}.safetensors")

    def _added(self, work: Work, first: bool) -> Job:
        with self._disk(), self.store.changing():
            above = max((folder.id for folder in job_folders(self.folder)), default=0) + 1
            job = self.store.add(replace(new_job(work, time.time()), id=above), first)
            folder = self.job_folder(job.id)
            try:
                folder.write(work, job.created_at)
            except BaseException:
                shutil.rmtree(folder.path, ignore_errors=True)
                raise
        return job

    def _named(self, work: Work, names: Iterable[str]) -> Work:
        """The work under the first of these names that is free, or else under the last."""
        holders = self._holders(work)
        for name in names:
            work = replace(work, config=replace(work.config, output_name=name))
            if not _taken(work, holders):
                break
        return work

    def _holders(self, work: Work) -> dict[str, Job]:
        """The unfinished trainings whose LoRAs are to lie beside this one, by their names in small letters."""
        jobs = self.store.jobs(UNFINISHED) if work.train else []
        return {job.name.lower(): job for job in jobs if (job.kind, job.output_folder) == ("train", work.output_folder)}

    def _requeue(self, id: int) -> None:
        try:
            if not self.store.requeue(id, RESUMABLE):
                raise self._wrong(id, "only a job that failed, was stopped or interrupted can go on")
        except NameTaken:
            name = self.job(id).name
            raise WrongState(f"Job {id} can't go on: another unfinished job is called {name}.") from None

    def _stopped_in_line(self, id: int) -> bool:
        """Stops a job that is queued; whether it was. Its events say so, as no worker will."""
        with self._disk(), self.store.changing():
            job = self.job(id)
            if not self.store.change(id, ("queued",), status="stopped", ended_at=time.time()):
                return False
            events = self.job_folder(id).events
            with EventWriter(events) as report:
                report("stopped", step=job.step, steps=job.steps)
            self.store.change(id, ("stopped",), seen=end_of_events(events))  # a worker that comes later did not say it
        return True

    def _send(self, id: int, command: str, otherwise: str) -> str:
        if self.job(id).status not in ACTIVE:
            raise self._wrong(id, otherwise)
        with self._disk():
            return send(self.job_folder(id), command)

    def _known_folder(self, id: int) -> JobFolder:
        return self.job_folder(self.job(id).id)

    def _wrong(self, id: int, otherwise: str) -> WrongState:
        return WrongState(f"Job {id} is {self.job(id).status}: {otherwise}.")

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, Taken) as error:
            reason = getattr(error, "strerror", None) or str(error).rstrip(".")
            place = getattr(error, "filename", None) or self.folder
            remedy = "Check the rights to it and the space on its disk."
            raise QueueFailed(f"{place} can't be read or written: {reason}. {remedy}") from error


def _taken(work: Work, holders: Mapping[str, Job]) -> Problem | None:
    """What is wrong with the name of a training, if a LoRA or another job has it."""
    folder, name = work.output_folder, work.name
    remedy = 'Choose another name, or set overwrite = "number" to have one added.'
    if work.train and is_there(Path(folder, f"{name}.safetensors")):
        return Problem("output_name", name, f"{name}.safetensors exists already in {Path(folder).name}", remedy)
    if job := holders.get(name.lower()):
        return Problem("output_name", name, f"job {job.id}, which is {job.status}, has this name", remedy)
    return None


def _oldest_first(folder: Path, endings: Collection[str]) -> list[Path]:
    """The folder's whole files with one of the endings."""
    try:
        found = [path for path in folder.iterdir() if path.suffix in endings]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))
    except FileNotFoundError:  # nothing was made yet, or it was just taken away
        return []

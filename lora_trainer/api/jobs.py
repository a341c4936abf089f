"""The jobs: added, listed, followed and commanded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from lora_trainer.api.answers import Answer, Refused, Route, problem
from lora_trainer.api.bodies import OBJECT, OPTIONS, Body, fields, job_number, number
from lora_trainer.api.places import Places, is_fit
from lora_trainer.api.sets import SETS
from lora_trainer.api.stream import events_answer
from lora_trainer.config import BadInput, Config, Problem, as_dict, from_dict
from lora_trainer.config.form import from_form
from lora_trainer.jobs.checks import faults
from lora_trainer.jobs.job import STATUSES, Job
from lora_trainer.jobs.queue import PLACES, Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.jobs.work import Work, absolute, read_prepare

MOST_JOBS = 1000
MOST_LINES = 10_000
KEEP = {"file": str, "name": str, "weight": float, "picture": str, "replace": bool}
WORK = {"config": dict, "form": dict, "prepare": dict, "train": bool}


@dataclass(frozen=True)
class JobRoutes:
    queue: Queue
    supervisor: Supervisor | None
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/jobs", self.add_job, methods=["POST"])
        router.add_api_route("/jobs", self.list_jobs, methods=["GET"])
        router.add_api_route("/queue", self.show_line, methods=["GET"])
        router.add_api_route("/jobs/{id}", self.show_job, methods=["GET"])
        router.add_api_route("/jobs/{id}", self.delete_job, methods=["DELETE"])
        router.add_api_route("/jobs/{id}/config", self.show_config, methods=["GET"])
        router.add_api_route("/jobs/{id}/events", self.follow_events, methods=["GET"])
        router.add_api_route("/jobs/{id}/log", self.show_log, methods=["GET"])
        router.add_api_route("/jobs/{id}/samples", self.list_samples, methods=["GET"])
        router.add_api_route("/jobs/{id}/samples/{name}", self.show_sample, methods=["GET"])
        router.add_api_route("/jobs/{id}/loras", self.list_loras, methods=["GET"])
        router.add_api_route("/jobs/{id}/loras/{name}", self.download_lora, methods=["GET"])
        router.add_api_route("/jobs/{id}/keep", self.show_keepable, methods=["GET"])
        router.add_api_route("/jobs/{id}/{command}", self.command_job, methods=["POST"])
        return router

    def add_job(self, body: Body = OBJECT) -> Response:
        """A config or a form, and what to prepare before; 201 with the queued job, 422 with every problem."""
        body = fields(body, {**WORK, "first": bool})
        work = read_work(body, self.places)
        SETS.wait_for(Path(subset.folder) for subset in work.config.subsets)
        job = self.queue.add(work, body.get("first", False))
        return Answer(asdict(job), 201, {"Location": f"jobs/{job.id}"})

    def list_jobs(self, request: Request) -> Response:
        """The newest first; `next` is the `before` with which the list goes on. `supervisor` says what is going on."""
        status = request.query_params.get("status")
        if status is not None and status not in STATUSES:
            raise problem("status", status, "is no status of a job", f"Use one of {', '.join(STATUSES)}.")
        limit = number(request, "limit", 100, MOST_JOBS) or 0
        jobs = self.queue.jobs(status, limit, number(request, "before", None)) if limit else []
        following = jobs[-1].id if jobs and len(jobs) == limit else None
        return Answer({"jobs": list(map(vars, jobs)), "next": following, "supervisor": self._supervisor()})

    def show_line(self) -> Response:
        """What runs and what waits, in the order in which it will be done."""
        return Answer({"jobs": list(map(vars, self.queue.line())), "supervisor": self._supervisor()})

    def show_job(self, id: str) -> Response:
        return Answer(asdict(self._job(id)))

    def delete_job(self, id: str) -> Response:
        """Takes it out of the history, with its folder; LoRAs in the output folder stay."""
        self.queue.delete(self._job(id).id)
        return Response(status_code=204)

    def show_config(self, id: str) -> Response:
        """What the job was given, just as POST /jobs takes it: the same again."""
        work = self.queue.work(self._job(id).id)
        prepare = {"prepare": asdict(work.prepare)} if work.prepare else {}
        return Answer({"config": as_dict(work.config), **prepare, "train": work.train})

    def follow_events(self, id: str, request: Request) -> Response:
        return events_answer(self.queue, self._job(id).id, request)

    def show_log(self, id: str, request: Request) -> Response:
        lines = number(request, "lines", 200, MOST_LINES) or 0
        return Answer({"lines": self.queue.log_tail(self._job(id).id, lines)})

    def list_samples(self, id: str) -> Response:
        """The previews, oldest first, each under its name below this address."""
        return Answer({"samples": [path.name for path in self.queue.samples(self._job(id).id)]})

    def show_sample(self, id: str, name: str) -> Response:
        return _file(self.queue.samples(self._job(id).id), name)

    def list_loras(self, id: str) -> Response:
        """Every LoRA that the job saved; POST .../keep puts one where the WebUI finds it."""
        return Answer({"loras": [path.name for path in self.queue.loras(self._job(id).id)]})

    def download_lora(self, id: str, name: str) -> Response:
        return _file(self.queue.loras(self._job(id).id), name)

    def show_keepable(self, id: str, request: Request) -> Response:
        """What POST .../keep may be given for ?file=: the first free `name` from ?name= on, `weight`, `pictures`."""
        query = request.query_params
        return Answer(self.queue.keepable(self._job(id).id, query.get("file", ""), query.get("name")))

    def command_job(self, id: str, command: str, body: Body = OPTIONS) -> Response:
        """`command` is the number that the event "heeded" names once the worker has taken it; "" where it is done."""
        if command not in COMMANDS:
            raise Refused(404, f"There is no command {command[:80]!r}. Use one of {', '.join(COMMANDS)}.")
        answer = COMMANDS[command](self.queue, self._job(id), body)
        if command == "keep":
            self.places.refresh_loras()
        return answer

    def _job(self, id: str) -> Job:
        return self.queue.job(job_number(id))

    def _supervisor(self) -> dict[str, Any] | None:
        if self.supervisor is None:
            return None
        return {name: getattr(self.supervisor, name) for name in ("current", "watching", "trouble")}


def read_work(body: Body, places: Places) -> Work:
    """The work that a body names; raises BadInput."""
    config = read_config(body, places)
    prepare = body.get("prepare")
    if prepare is not None:
        given = prepare.get("folder") or config.dataset_name
        prepare = read_prepare({"models": str(places.models), **prepare, "folder": _dataset(given, places)})
    return places.inside(Work(config, prepare, body.get("train", True)))


def read_config(body: Body, places: Places) -> Config:
    """The body's `config`, or its `form`: the values of the tab's widgets. Raises BadInput."""
    if "form" in body:
        form = places.settled_form(body["form"])
        try:
            return from_form(form)
        except BadInput as error:
            raise BadInput([*error.problems, *_further(form, error, places)]) from None
    if "config" not in body:
        raise problem("config", None, "is missing", "Give an object.")
    return from_dict(places.settled(body["config"]))


def _further(form: dict[str, Any], error: BadInput, places: Places) -> list[Problem]:
    """What is wrong besides with a form of which some values cannot be read: files that are missing, say."""
    told = {problem.setting.partition(".")[0] for problem in error.problems}
    sound = from_form({name: value for name, value in form.items() if name not in told})
    try:
        found: Sequence[Problem] = faults(places.inside(absolute(Work(sound))), look=False)
    except BadInput as outside:  # nothing is said of what lies there
        found = outside.problems
    return [problem for problem in found if problem.setting not in told]


def _dataset(given: Any, places: Places) -> Any:
    """A dataset's name as its folder, which need not be there yet."""
    return str(places.datasets / given) if isinstance(given, str) and is_fit(given) else given


def _file(paths: list[Path], name: str) -> Response:
    """One of the files, by its name."""
    path = next((path for path in paths if path.name == name), None)
    if path is None:
        raise Refused(404, f"There is no file {name[:80]!r} of this job.")
    return FileResponse(path, filename=path.name, headers={"X-Content-Type-Options": "nosniff"})


Command = Callable[[Queue, Job, Body], Response]


def _sent(send: Callable[[Queue, int], str]) -> Command:
    """A command without options to a job's worker."""

    def command(queue: Queue, job: Job, body: Body) -> Response:
        fields(body, {})
        return _taken(queue, job, send(queue, job.id))

    return command


def _stop(queue: Queue, job: Job, body: Body) -> Response:
    return _taken(queue, job, queue.stop(job.id, fields(body, {"save": bool}).get("save", False)))


def _taken(queue: Queue, job: Job, command: str) -> Response:
    return Answer({"job": asdict(queue.job(job.id)), "command": command}, 202 if command else 200)


def _retry(queue: Queue, job: Job, body: Body) -> Response:
    return Answer(asdict(queue.retry(job.id, fields(body, {"fresh": bool}).get("fresh", True))))


def _copy(queue: Queue, job: Job, body: Body) -> Response:
    fields(body, {})
    return Answer(asdict(queue.copy(job.id)), 201)


def _move(queue: Queue, job: Job, body: Body) -> Response:
    where = fields(body, {"where": str}, required=("where",))["where"]
    if where not in PLACES:
        raise problem("where", where, "is no place in the queue", f"Use one of {', '.join(PLACES)}.")
    return Answer(asdict(queue.move(job.id, where)))


def _keep(queue: Queue, job: Job, body: Body) -> Response:
    return Answer({"lora": queue.keep(job.id, **fields(body, KEEP, required=("file",)))})


COMMANDS: dict[str, Command] = {
    "pause": _sent(Queue.pause),
    "resume": _sent(Queue.resume),
    "stop": _stop,
    "save": _sent(Queue.save),
    "sample": _sent(Queue.sample),
    "retry": _retry,
    "copy": _copy,
    "move": _move,
    "keep": _keep,
}

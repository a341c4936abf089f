"""Long actions of requests: each in a thread of its own, asked after and cancelled by its number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import TOLD, Answer, Refused, Route, status_and_sentence
from lora_trainer.api.bodies import NUMBER
from lora_trainer.config import BadInput, Problem

MOST_KEPT = 50  # tasks that have ended
AT_ONCE_SECONDS = 0.15  # a task that takes no longer is answered with its result

Run = Callable[["Task"], dict[str, Any]]


class Cancelled(Exception):
    """Raised by a task that has heeded `wanted`."""


@dataclass
class Task:
    """`dataset`: the set it is about. `wanted`: it was asked to stop, and raises Cancelled when it sees that; `ending`,
    where there is one, is called to make it see that soon.

    `state` is running, finished (there is a `result`), failed (there are `problems`, or `detail`) or cancelled.
    """

    id: int
    kind: str
    dataset: str
    state: str = "running"
    phase: str = ""
    done: int = 0
    of: int = 0
    result: dict[str, Any] | None = None
    detail: str = ""
    problems: list[Problem] = field(default_factory=list)
    wanted: bool = False
    ending: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    over: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def tell(self, done: int, of: int, phase: str = "") -> None:
        """How far it is. Raises Cancelled where it is not to go on."""
        self.done, self.of, self.phase = done, of, phase or self.phase
        self.check()

    def check(self) -> None:
        """Raises Cancelled where it is not to go on."""
        if self.wanted:
            raise Cancelled

    def cancel(self) -> None:
        self.wanted = True
        if ending := self.ending:
            ending()

    def facts(self) -> dict[str, Any]:
        """As JSON can say it."""
        shown = ("id", "kind", "dataset", "state", "phase", "done", "of", "result", "detail")
        return {**{name: getattr(self, name) for name in shown}, "problems": list(map(asdict, self.problems))}

    def run(self, action: Run) -> None:
        """Never raises what a person can put right: it is told. What nobody foresaw goes to the console."""
        try:
            self.result = action(self)
            self.state = "finished"
        except Cancelled:
            self.state = "cancelled"
        except BadInput as error:
            self.state, self.problems = "failed", list(error.problems)
        except TOLD as error:
            self.state, self.detail = "failed", status_and_sentence(error)[1]
        finally:
            if self.state == "running":
                self.state, self.detail = "failed", "It ended by an error of this program, which the console shows."
            self.over.set()


class Tasks:
    """The newest tasks of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._tasks: OrderedDict[int, Task] = OrderedDict()

    def start(self, kind: str, dataset: str, action: Run) -> Task:
        """Refused (409) while another task of this kind is at work on the set."""
        with self._lock:
            if busy := next((task for task in self._of(dataset) if (task.kind, task.state) == (kind, "running")), None):
                raise Refused(409, f"This is being done already (task {busy.id}). Wait for it, or cancel it.")
            task = Task(next(self._numbers), kind, dataset)
            self._tasks[task.id] = task
            ended = [old.id for old in self._tasks.values() if old.state != "running"]
            for id in ended[:-MOST_KEPT]:
                del self._tasks[id]
        threading.Thread(target=task.run, args=[action], name=f"lora-trainer-{kind}", daemon=True).start()
        task.over.wait(AT_ONCE_SECONDS)
        return task

    def get(self, text: str) -> Task:
        """Refused (404) where there is no such task."""
        task = self._tasks.get(int(text)) if NUMBER.fullmatch(text) else None
        if task is None:
            raise Refused(404, f"There is no task {text[:80]!r}. The host may have been started again since.")
        return task

    def all(self, dataset: str | None = None) -> list[Task]:
        with self._lock:
            return self._of(dataset) if dataset is not None else list(self._tasks.values())

    def _of(self, dataset: str) -> list[Task]:
        return [task for task in self._tasks.values() if task.dataset == dataset]


TASKS = Tasks()  # for the whole process, as a host mounts the routes anew when it reloads its page


@dataclass(frozen=True)
class TaskRoutes:
    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/tasks", self.list_tasks, methods=["GET"])
        router.add_api_route("/tasks/{id}", self.show_task, methods=["GET"])
        router.add_api_route("/tasks/{id}", self.cancel_task, methods=["DELETE"])
        return router

    def list_tasks(self, request: Request) -> Response:
        """All, or those of ?dataset=NAME, oldest first."""
        return Answer({"tasks": [task.facts() for task in TASKS.all(request.query_params.get("dataset"))]})

    def show_task(self, id: str) -> Response:
        return Answer(TASKS.get(id).facts())

    def cancel_task(self, id: str) -> Response:
        """Asks it to stop, which takes effect between two pictures; what it would have changed stays as it was."""
        task = TASKS.get(id)
        task.cancel()
        return started(task)


def started(task: Task) -> Response:
    """200 with the result where there is one already, else 202."""
    return Answer(task.facts(), 202 if task.state == "running" else 200, {"Location": f"tasks/{task.id}"})

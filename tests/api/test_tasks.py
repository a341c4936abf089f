"""Long actions of requests: told of while they go on, cancelled, and ended in one sentence."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from lora_trainer.api.answers import Refused
from lora_trainer.api.tasks import MOST_KEPT, TASKS, Cancelled, Task, Tasks
from lora_trainer.config import BadInput, Problem
from tests.api.conftest import V1, Client
from tests.jobs.patience import until


def waiting(task: Task) -> dict[str, Any]:
    """Goes on until it is cancelled."""
    task.tell(3, 10, "looking")
    while not task.wanted:
        threading.Event().wait(0.01)
    raise Cancelled


def test_a_task_is_told_of_while_it_goes_on_and_is_cancelled(client: Client) -> None:
    task = TASKS.start("test", "told", waiting)
    here = f"{V1}/tasks/{task.id}"
    shown = client.get(here).json()
    assert {name: shown[name] for name in ("state", "phase", "done", "of", "result")} == {
        "state": "running", "phase": "looking", "done": 3, "of": 10, "result": None,
    }  # fmt: skip
    assert [each["id"] for each in client.get(f"{V1}/tasks?dataset=told").json()["tasks"]] == [task.id]
    assert client.get(f"{V1}/tasks?dataset=other").json() == {"tasks": []}
    assert client.delete(here).status_code in (200, 202)
    until(task.over.is_set)
    assert client.get(here).json()["state"] == "cancelled"


def test_what_is_done_at_once_is_answered_with_its_result() -> None:
    task = Tasks().start("test", "set", lambda task: {"added": 7})
    until(task.over.is_set)
    assert (task.state, task.result) == ("finished", {"added": 7})


def raising(error: Exception) -> Task:
    def action(task: Task) -> dict[str, Any]:
        raise error

    task = Tasks().start("test", "set", action)
    until(task.over.is_set)
    return task


def test_a_failure_is_told_in_the_words_of_a_route() -> None:
    problem = Problem("pictures", "a.png", "is damaged", "Copy it again.")
    bad, refused = raising(BadInput([problem])), raising(Refused(503, "The disk is full."))
    assert (bad.state, bad.facts()["problems"]) == ("failed", [vars(problem)])
    assert (refused.state, refused.facts()["detail"]) == ("failed", "The disk is full.")


def test_an_error_that_nobody_foresaw_ends_the_task_and_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    task = raising(KeyError("nothing"))
    until(lambda: shown)
    assert task.state == "failed" and "console" in task.detail and shown[0].exc_type is KeyError


def test_the_same_is_not_done_twice_at_once_to_a_set() -> None:
    tasks = Tasks()
    first = tasks.start("test", "set", waiting)
    with pytest.raises(Refused, match=f"task {first.id}"):
        tasks.start("test", "set", waiting)
    others = [tasks.start("test", "other", waiting), tasks.start("other", "set", waiting)]
    for task in (first, *others):
        task.cancel()
        until(task.over.is_set)
    assert tasks.start("test", "set", lambda task: {}).id > first.id


def test_tasks_that_have_ended_are_forgotten_and_running_ones_are_not() -> None:
    tasks = Tasks()
    running = tasks.start("test", "slow", waiting)
    for number in range(MOST_KEPT + 5):
        until(tasks.start("test", f"set {number}", lambda task: {}).over.is_set)
    kept = tasks.all()
    assert running in kept and MOST_KEPT <= len(kept) <= MOST_KEPT + 2
    running.cancel()
    until(running.over.is_set)


@pytest.mark.parametrize("id", ["99999999", "x", "-1", "1" * 30])
def test_a_task_that_is_not_there_is_not_found(client: Client, id: str) -> None:
    assert client.get(f"{V1}/tasks/{id}").status_code == 404
    assert client.delete(f"{V1}/tasks/{id}").status_code == 404

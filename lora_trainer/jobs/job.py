"""A job as the queue knows it, and the states it can be in."""

from __future__ import annotations

from dataclasses import dataclass

# queued -> running <-> paused -> finished, failed, stopped (as asked), or interrupted (its worker died without a word)
STATUSES = ("queued", "running", "paused", "finished", "failed", "stopped", "interrupted")
ACTIVE = ("running", "paused")  # it has a worker
UNFINISHED = ("queued", *ACTIVE)
RESUMABLE = ("failed", "stopped", "interrupted")


class NoSuchJob(Exception):
    """There is no job of that number; the text is a sentence."""

    def __init__(self, id: int) -> None:
        super().__init__(f"There is no job {id}.")


class WrongState(Exception):
    """The job is in a state in which that cannot be done; the text is a sentence."""


@dataclass(frozen=True)
class Job:
    """A row of the queue. Times are in seconds since 1970.

    `position` orders the queued ones. What is from `step` to `lora` is what the worker told, `seen` how many bytes
    of its events that takes in. `reason` is a word for programs, `cause` and `remedy` are sentences; `lora` is the
    published file. `started_at` and `pid` are those of the latest of `attempts` workers.
    """

    id: int = 0
    kind: str = "train"
    name: str = ""
    base: str = ""  # the base model's file name
    output_folder: str = ""
    status: str = "queued"
    position: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    pid: int | None = None
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    lora: str = ""
    reason: str = ""
    cause: str = ""
    remedy: str = ""
    seen: int = 0

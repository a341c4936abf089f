"""What a route answers, and what it answers when something is wrong: a sentence, never a traceback."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from lora_trainer.config import BadInput, Problem
from lora_trainer.hosts.host import HostProblem
from lora_trainer.jobs.job import NoSuchJob, WrongState
from lora_trainer.jobs.store import QueueFailed

STATUS_OF = {NoSuchJob: 404, WrongState: 409, QueueFailed: 503, HostProblem: 503}
FULL = (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,)
OF_A_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}  # of what has its time in its address


class Refused(Exception):
    """A request that is not done: the HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = dict(headers or {})


TOLD = (BadInput, Refused, ClientDisconnect, OSError, NoSuchJob, WrongState, QueueFailed, HostProblem)


@contextmanager
def gathered(faults: list[Problem]) -> Iterator[None]:
    """Adds what BadInput says to them, so that all of it can be told at once."""
    try:
        yield
    except BadInput as error:
        faults += error.problems


class Answer(JSONResponse):
    """JSON that every reader takes: no NaN, no half letters, whatever a file or its name holds."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, default=str)
        return text.encode("utf-8", "replace")


class Route(APIRoute):
    """A route that tells what went wrong itself, as each host's app has other handlers of errors."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except TOLD as error:
                return self.told(error)

        return answered

    def told(self, error: Exception) -> Response:
        """The problems of BadInput as a list (422); everything else as one sentence, `detail`."""
        if isinstance(error, BadInput):
            return Answer({"problems": [asdict(problem) for problem in error.problems]}, 422)
        status, sentence = status_and_sentence(error)
        return Answer({"detail": sentence}, status, getattr(error, "headers", None))


def status_and_sentence(error: Exception) -> tuple[int, str]:
    """The HTTP status of what a route raises, and what is to be said about it."""
    if isinstance(error, Refused):
        return error.status, str(error)
    if isinstance(error, BadInput):
        return 422, "; ".join(map(str, error.problems))
    if isinstance(error, ClientDisconnect):
        return 400, "The connection was closed before the whole request had come."
    if isinstance(error, OSError):
        return _of_the_disk(error)
    return STATUS_OF[type(error)], str(error)


def problem(setting: str, value: object, what: str, remedy: str) -> BadInput:
    """One problem, to be raised."""
    return BadInput(Problem(setting, value, what, remedy))


def _of_the_disk(error: OSError) -> tuple[int, str]:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return 507, f"The disk is full ({reason}). Make room, and send the request again."
    if error.errno in OF_A_NAME:
        return 422, f"A name or path in the request cannot be used ({reason}). Use a shorter or plainer one."
    return 503, f"The disk refused ({reason}). Put that right, and send the request again."


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value

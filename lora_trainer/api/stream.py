"""A job's events, as they come: server-sent events, whose ids are the offsets from which to read on."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from lora_trainer.api.answers import Answer, problem
from lora_trainer.api.bodies import LARGEST, NUMBER, number
from lora_trainer.jobs.event_log import Event, in_short, read_events
from lora_trainer.jobs.job import UNFINISHED, NoSuchJob
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.store import QueueFailed

MOST_EVENTS = 1000
MOST_POINTS = 10_000
POLL_SECONDS = 0.5
SILENCE_SECONDS = 15.0  # proxies close what says nothing for longer
HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect them
    "Content-Encoding": "identity",  # the WebUIs' compression would, too
}


def events_answer(queue: Queue, id: int, request: Request) -> Response:
    """The events from ?offset= on, or after the one that Last-Event-ID names: a stream that ends with the job.

    With `Accept: application/json`, those that are there, and the offset from which the next ones will be; with
    ?points= all of them in short, that many of what comes with every step.
    """
    offset = _offset(request)
    points = number(request, "points", None, MOST_POINTS)
    if points is not None:
        events, following = in_short(queue.job_folder(id).events, points)
        return Answer({"events": [event.as_dict() for event in events], "next": following})
    if "application/json" in request.headers.get("accept", ""):
        most = number(request, "limit", MOST_EVENTS, MOST_EVENTS) or 0
        events, following = read_events(queue.job_folder(id).events, offset, most)
        return Answer({"events": [event.as_dict() for event in events], "next": following})
    return StreamingResponse(_messages(queue, id, offset), media_type="text/event-stream", headers=HEADERS)


async def _messages(queue: Queue, id: int, offset: int) -> AsyncIterator[str]:
    """A message for each event, `ended` with the job after the last one, and a comment now and then between them."""
    told = -math.inf  # a comment at once, too: what stands between may keep the answer back until something comes
    while True:
        ended, events, offset = await run_in_threadpool(_look, queue, id, offset)
        if events:
            told = time.monotonic()
            yield "".join(map(_message, events))
        elif ended is not None:
            yield f"id: {offset}\nevent: ended\ndata: {_json(ended)}\n\n"
            return
        elif time.monotonic() - told > SILENCE_SECONDS:
            told = time.monotonic()
            yield ": nothing yet\n\n"
        else:
            await asyncio.sleep(POLL_SECONDS)


def _look(queue: Queue, id: int, offset: int) -> tuple[dict[str, Any] | None, list[Event], int]:
    """The job if it has ended, the events from `offset` on, and the next offset; nothing where the disk refuses now."""
    try:
        return _ended(queue, id), *read_events(queue.job_folder(id).events, offset, MOST_EVENTS)
    except (QueueFailed, OSError):
        return None, [], offset


def _ended(queue: Queue, id: int) -> dict[str, Any] | None:
    """The job once no more events are to come of it; asked before they are read, so that none is missed."""
    try:
        job = queue.job(id)
    except NoSuchJob:
        return {"id": id, "status": "deleted"}
    return None if job.status in UNFINISHED else asdict(job)


def _message(event: Event) -> str:
    return f"id: {event.next}\ndata: {_json(event.as_dict())}\n\n"


def _json(value: Any) -> str:
    return Answer(value).body.decode("utf-8")


def _offset(request: Request) -> int:
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return number(request, "offset", 0) or 0
    if not NUMBER.fullmatch(text) or int(text) >= LARGEST:
        raise problem("Last-Event-ID", text, "is not an event's id", "Leave it out, to read from the beginning.")
    return int(text)

"""Events followed over a real server, with a reader that knows nothing but the format of server-sent events."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from lora_trainer.api import stream
from lora_trainer.jobs.event_log import EventWriter
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, ConfigOf, served
from tests.jobs.patience import until

EVENTS = f"{V1}/jobs/1/events"
# Starlette's compression leaves a file in memory open where it compresses nothing, which newer Pythons tell of.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <gzip:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.01)


@pytest.fixture
def events(client: Client, queue: Queue, config_of: ConfigOf) -> Path:
    """The events of a job at work."""
    client.post(f"{V1}/jobs", json={"config": config_of()})
    queue.store.claim(1.0)
    return queue.job_folder(1).events


def end(queue: Queue) -> None:
    assert queue.store.change(1, ("running",), status="finished", ended_at=2.0)


@contextmanager
def asked(address: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
    """The answer of a server, whose lines come as it sends them."""
    client = httpx.Client(timeout=120, trust_env=False)
    with client, client.stream("GET", address + EVENTS, headers=headers) as answer:
        yield answer


def messages(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """As https://html.spec.whatwg.org/multipage/server-sent-events.html has it, of one line of data each."""
    message: dict[str, str] = {}
    for line in lines:
        if not line and "data" in message:
            yield {"event": "message", **message}
            message = {}
        elif line and not line.startswith(":"):
            field, _, value = line.partition(": ")
            message[field] = value


def follow(address: str, rng: random.Random | None = None) -> list[Any]:
    """The steps that a client sees until the job has ended; with `rng` it goes away now and then and comes back."""
    steps: list[Any] = []
    last = ""
    while True:
        with asked(address, {"Last-Event-ID": last} if last else None) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for message in messages(answer.iter_lines()):
                if message["event"] == "ended":
                    assert json.loads(message["data"])["status"] == "finished"
                    return steps
                steps.append(json.loads(message["data"])["step"])
                last = message["id"]
                if rng and rng.random() < 0.04:
                    break


def in_a_webui(app: FastAPI) -> Any:
    """The app behind what the WebUIs put before theirs: compression, and a middleware of their API."""

    async def timed(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    return GZipMiddleware(BaseHTTPMiddleware(app, timed), minimum_size=1000)


def test_five_clients_see_every_event_once(app: FastAPI, queue: Queue, events: Path) -> None:
    with served(app) as address, ThreadPoolExecutor(5) as clients:
        seen = [clients.submit(follow, address, random.Random(seed) if seed else None) for seed in range(5)]
        with EventWriter(events) as report:
            for step in range(200):
                report("progress", step=step, name="ずんだもん")
        end(queue)
        assert [client.result(120) for client in seen] == [list(range(200))] * 5


def test_an_event_comes_while_the_job_goes_on_whatever_the_host_puts_between(
    app: FastAPI, queue: Queue, events: Path
) -> None:
    with served(in_a_webui(app)) as address, asked(address) as answer:
        report = EventWriter(events)
        come = messages(answer.iter_lines())
        for step in range(3):
            report("progress", step=step)
            assert json.loads(next(come)["data"])["step"] == step
        report.close()
        end(queue)
        assert next(come)["event"] == "ended"


def test_who_has_gone_is_not_followed_any_more(app: FastAPI, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)
    there: list[int] = []
    read = stream.read_events

    def counted(*arguments: Any) -> Any:
        there.append(threading.get_ident())
        looked.release()
        return read(*arguments)

    monkeypatch.setattr(stream, "read_events", counted)
    with served(in_a_webui(app)) as address:
        with asked(address), EventWriter(events) as report:
            report("progress", step=1)
            assert looked.acquire(timeout=10)
        until(lambda: not _grows(there), 20)


def _grows(there: list[int]) -> bool:
    """Whether somebody still looks, over thirty times as long as there is between two looks."""
    before = len(there)
    threading.Event().wait(0.3)
    return len(there) > before


def test_a_job_that_is_deleted_ends_its_streams(app: FastAPI, queue: Queue, events: Path) -> None:
    with served(app) as address, asked(address) as answer:
        end(queue)
        queue.delete(1)
        (message,) = messages(answer.iter_lines())
        assert message["event"] == "ended" and json.loads(message["data"])["status"] in ("finished", "deleted")


def test_events_are_a_list_where_that_is_asked_for(client: Client, queue: Queue, events: Path) -> None:
    with EventWriter(events) as report:
        for step in range(10):
            report("progress", step=step, loss=float("nan"))
    seen, offset = [], 0
    while page := client.get(f"{EVENTS}?offset={offset}&limit=4", headers={"Accept": "application/json"}).json():
        offset = page["next"]
        if not page["events"]:
            break
        seen += page["events"]
    assert [(event["event"], event["step"], event["loss"]) for event in seen] == [
        ("progress", step, None) for step in range(10)
    ]
    assert offset == events.stat().st_size


def test_who_comes_late_gets_the_events_in_short_and_goes_on_from_there(
    client: Client, queue: Queue, events: Path
) -> None:
    with EventWriter(events) as report:
        report("started", step=0)
        for step in range(1, 1001):
            report("progress", step=step)
    page = client.get(f"{EVENTS}?points=10").json()
    assert [event.get("step") for event in page["events"]] == [0, *range(100, 1001, 100)]
    with EventWriter(events) as report:
        report("finished", lora="zdm")
    after = client.get(f"{EVENTS}?offset={page['next']}", headers={"Accept": "application/json"}).json()
    assert [event["event"] for event in after["events"]] == ["finished"]
    assert client.get(f"{EVENTS}?points=x").status_code == 422


@pytest.mark.parametrize("header", ["x", "-1", "9" * 30, "1.5"])
def test_an_id_that_is_none_is_told(client: Client, events: Path, header: str) -> None:
    assert client.get(EVENTS, headers={"Last-Event-ID": header}).status_code == 422
    assert client.get(f"{EVENTS}?offset={header}").status_code == 422


def test_an_offset_behind_the_end_or_inside_a_line_brings_no_half_event(client: Client, events: Path) -> None:
    with EventWriter(events) as report:
        report("progress", step=1)
        report("progress", step=2)
    size = events.stat().st_size
    for offset in (*range(size + 3), 10**17):
        page = client.get(f"{EVENTS}?offset={offset}", headers={"Accept": "application/json"}).json()
        assert [event["step"] for event in page["events"]] in ([1, 2], [2], [])

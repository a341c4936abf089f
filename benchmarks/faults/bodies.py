"""Bodies that are no config, made from our own schema: each is refused in a sentence, and starts nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from operator import add, sub
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from benchmarks.faults.jobs import Size, job_config
from benchmarks.faults.serving import request, serving
from lora_trainer.config import as_dict, schema
from lora_trainer.jobs.queue import Queue

ROUTES = ("v1/jobs", "v1/config/check", "aws/trainings")
JSON_HEADERS = {"Content-Type": "application/json"}

Body = tuple[bytes, dict[str, str]]
Json = Any


def send_malformed(work: Path, size: Size) -> dict[str, Any]:
    """Each body goes to every route that takes a config."""
    folder = work / "bodies"
    queue = Queue(folder / "jobs")
    whole = {"config": as_dict(job_config(size, folder / "Lora", "whole"))}
    sent: list[Body] = []
    answers: Counter[int] = Counter()
    count: Counter[str] = Counter()
    with serving(queue) as port:

        @settings(
            max_examples=size.bodies, database=None, derandomize=True, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(malformed(whole))
        def send(body: Body) -> None:
            sent.append(body)
            for route in ROUTES:
                status, text = request(port, "POST", route, *body)
                answers[status] += 1
                count["tracebacks"] += "Traceback" in text
                count["accepted"] += status < 300 and not _says_what_is_wrong(text)

        send()
        accepted, _ = request(port, "POST", ROUTES[0], json.dumps(whole).encode("utf-8"), JSON_HEADERS)
    started = [job for job in queue.jobs() if job.name != "whole"]
    return {
        "bodies": len(sent),
        "bodies_requests": answers.total(),
        "bodies_answers": {str(status): answers[status] for status in sorted(answers)},
        "bodies_500": sum(number for status, number in answers.items() if status >= 500),
        "bodies_tracebacks": count["tracebacks"],
        "bodies_accepted": count["accepted"],
        "bodies_started": len(started),
        "bodies_the_whole_one": accepted,
    }


def _says_what_is_wrong(text: str) -> bool:
    """Whether an answer lists problems, as that of a check may."""
    return bool(json.loads(text).get("problems"))


def malformed(whole: Mapping[str, Json]) -> SearchStrategy[Body]:
    """A body with one thing wrong that is right but for it."""
    text = json.dumps(whole).encode("utf-8")
    cut_off = st.integers(0, len(text) - 1).map(lambda length: text[:length])
    other = st.sampled_from([b"\xff\xfe", b"null", b"[]", b"7", b'"config"', b"[" * 5000, b'{"config": {', b"{}"])
    not_json = st.tuples(st.one_of(cut_off, other, st.binary(max_size=40)), st.just(JSON_HEADERS))
    not_said_so = st.tuples(
        st.just(text), st.sampled_from(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
    ).map(lambda pair: (pair[0], {"Content-Type": pair[1]}))
    changed = st.one_of(st.one_of(*_wrong_settings(whole)), st.one_of(*_wrong_parts(whole)))
    as_json = changed.map(lambda body: (json.dumps(body).encode("utf-8"), JSON_HEADERS))
    return st.one_of(as_json, as_json, as_json, not_json, not_said_so)


def _wrong_settings(whole: Mapping[str, Json]) -> list[SearchStrategy[Json]]:
    """One setting of the schema with a value that it does not take, or one that there is not."""

    def with_setting(name: str, value: Json) -> Json:
        return {**whole, "config": {**whole["config"], name: value}}

    strategies = [
        st.tuples(st.just(name), wrong_value(name, row)).map(lambda pair: with_setting(*pair))
        for name, row in schema()["properties"].items()
    ]
    return [*strategies, st.tuples(NO_NAME, ANYTHING).map(lambda pair: with_setting(*pair))]


def _wrong_parts(whole: Mapping[str, Json]) -> list[SearchStrategy[Json]]:
    """Something wrong beside the settings."""
    no_object = ANYTHING.filter(lambda value: not isinstance(value, dict))
    no_flag = ANYTHING.filter(lambda value: not isinstance(value, bool))
    return [
        no_object.map(lambda value: {**whole, "config": value}),
        no_flag.map(lambda value: {**whole, "first": value}),
        no_object.map(lambda value: {**whole, "prepare": value}),
        st.tuples(NO_NAME, ANYTHING).map(lambda pair: {**whole, pair[0]: pair[1]}),
        st.just({"first": True}),
    ]


def wrong_value(name: str, row: Mapping[str, Json]) -> SearchStrategy[Json]:
    """What a setting's schema does not allow, nor its text form: `row` is its entry in the JSON Schema."""
    kinds = row.get("anyOf", [row])
    types = {kind.get("type") for kind in kinds}
    wrong: list[SearchStrategy[Json]] = [NO_OBJECT_OF_OURS, st.lists(NO_OBJECT_OF_OURS, min_size=1)]
    if "null" not in types:
        wrong.append(st.none())
    if "string" in types:
        wrong += [st.sampled_from(["\0", "half a letter: \ud83d"])]
    elif "array" not in types or any("enum" in kind.get("items", {}) for kind in kinds):
        wrong.append(NO_NAME)  # no choice, no number, neither true nor false
    for kind in kinds:
        if "maximum" in kind:
            wrong.append(st.integers(1, 10**6).map(partial(add, kind["maximum"])))
        if "minimum" in kind:
            wrong.append(st.integers(1, 10**6).map(partial(sub, kind["minimum"])))
        if kind.get("type") in ("number", "integer"):
            wrong.append(st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**400]))
    return st.one_of(wrong)


ANYTHING: SearchStrategy[Json] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NO_NAME = st.text(max_size=20).map(lambda text: f"no such thing {text}")
NO_OBJECT_OF_OURS = st.dictionaries(NO_NAME, ANYTHING, min_size=1, max_size=3)

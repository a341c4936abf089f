"""Whatever a client sends, it is told what is wrong with it: no traceback, and nothing is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lora_trainer.api import mount
from lora_trainer.config import SETTINGS, SUBSET_SETTINGS, schema
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import AWS, OPEN, V1, Client, FakeHost, png

COMMANDS = ("pause", "resume", "stop", "save", "sample", "retry", "copy", "move", "keep")
MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEWER = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ODD_TEXTS = ("", "zdm", "..", "../x", "/etc", "a" * 5000, "a/" * 3000, "NaN", "con", "\u202e", "base.safetensors")
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(letters, max_size=20) | st.sampled_from(ODD_TEXTS)
numbers = st.integers(-(1 << 63), 1 << 62) | st.floats(allow_nan=False, allow_infinity=False)
# What is refused wherever it stands, before anybody looks at what it is for.
NEVER = ("\0", "a\ud800", 1 << 63, -(1 << 70), 10**400, float("nan"), float("-inf"))
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def of_schema(node: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values as our own schema describes them."""
    if "anyOf" in node:
        return st.one_of([of_schema(inner) for inner in node["anyOf"]])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if node["type"] == "array":
        return st.lists(of_schema(node["items"]), min_size=node.get("minItems", 0), max_size=node.get("maxItems", 3))
    if node["type"] == "object":
        inner = {name: of_schema(inner) for name, inner in node["properties"].items()}
        return st.fixed_dictionaries({}, optional=inner)
    kinds = {"boolean": st.booleans(), "string": texts, "null": st.none(), "integer": st.integers(-5, 100)}
    return kinds.get(node["type"], numbers)


PROPERTIES = schema()["properties"]
almost = st.fixed_dictionaries({}, optional={name: of_schema(node) | anything for name, node in PROPERTIES.items()})
named = st.dictionaries(st.sampled_from([*SETTINGS, *SUBSET_SETTINGS]), anything, max_size=5)
configs = st.one_of(almost, named, anything)
besides = {"prepare": anything, "train": anything, "first": anything, "more": anything}
bodies = st.one_of(
    st.fixed_dictionaries({"config": configs}),
    st.fixed_dictionaries({"config": configs}, optional=besides),
    anything,
)


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """One app for all of what is tried, as what is refused leaves nothing behind."""
    home = tmp_path_factory.mktemp("api")
    (home / "base.safetensors").write_bytes(b"weights")
    (home / "datasets" / "zdm" / "10_zdm").mkdir(parents=True)
    (home / "datasets" / "zdm" / "10_zdm" / "a.png").write_bytes(png())
    queue, app = Queue(home / "jobs"), FastAPI()
    mount(app, queue, None, FakeHost(home=home), OPEN, home / "datasets")
    yield SimpleNamespace(client=Client(app), queue=queue, home=home)
    queue.close()


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if "sqlite" not in path.name)


def refused(api: SimpleNamespace, method: str, path: str, data: bytes) -> dict[str, Any]:
    """Sends it, sees that it is told and changes nothing, and returns what is said."""
    before = contents(api.home)
    answer = api.client(method, path, content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404, 409, 413, 422), (answer.status_code, answer.text)
    said: dict[str, Any] = answer.json()
    assert said.get("problems") or said.get("detail") or said.get("message")
    assert "Traceback" not in answer.text
    assert api.queue.jobs() == [] and contents(api.home) == before
    return said


@MANY
@given(bodies)
@example([])
@example({"config": {}})
@example({"config": {"base_model": "a" * 5000, "subsets": [{"folder": "b" * 5000}], "output_name": "c" * 5000}})
@example({"config": {"base_model": "base.safetensors", "subsets": [{"folder": "x\0"}], "output_name": "a"}})
@example({"config": {"base_model": "/", "subsets": [{"folder": "/dev/null"}], "output_name": "a"}})
@example({"config": {"seed": 10**400, "rank": float("nan"), "learning_rate": float("inf")}})
@example({"config": {"dataset_name": "a"}, "prepare": {"folder": "/dev/null/x", "sources": ["/"]}, "train": False})
def test_no_body_makes_a_job_or_a_traceback(api: SimpleNamespace, body: Any) -> None:
    refused(api, "POST", f"{V1}/jobs", json.dumps(body).encode())


@MANY
@given(configs)
def test_a_config_that_is_checked_is_told_its_problems(api: SimpleNamespace, config: Any) -> None:
    before = contents(api.home)
    data = json.dumps({"config": config}).encode()
    answer = api.client.post(f"{V1}/config/check", content=data, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)
    assert answer.json()["problems"]
    assert api.queue.jobs() == [] and contents(api.home) == before


@FEWER
@given(st.binary(max_size=200))
@example(b"")
@example(b"{" * 100_000)
@example(b'{"config":' * 20_000)
@example(b"[" * 900 + b"]" * 900)
@example(b'{"config": {"rank": ' + b"9" * 6000 + b"}}")
@example(b'{"config": "\xff"}')
@example(b'\xef\xbb\xbf{"config": 1}')
@example('{"config": 1}'.encode("utf-16"))
def test_bytes_that_are_no_json_are_told(api: SimpleNamespace, data: bytes) -> None:
    refused(api, "POST", f"{V1}/jobs", data)


@FEWER
@given(st.sampled_from(NEVER), st.sampled_from(["config", "prepare", "more"]), st.sampled_from([*SETTINGS]))
def test_what_no_file_can_hold_is_refused_wherever_it_stands(
    api: SimpleNamespace, value: Any, where: str, name: str
) -> None:
    wrong = [{"config": {}, where: inner} for inner in (value, {name: value}, {name: [{"folder": value}]})]
    wrong += [{"config": {name + value: 1}}] if isinstance(value, str) else []
    for body in wrong:
        (problem,) = refused(api, "POST", f"{V1}/jobs", json.dumps(body).encode())["problems"]
        assert problem["setting"] == "body"


@pytest.mark.parametrize("depth", [40, 900, 100_000])
def test_what_is_nested_too_deeply_is_refused(api: SimpleNamespace, depth: int) -> None:
    data = b'{"config": ' + b"[" * depth + b"]" * depth + b"}"
    (problem,) = refused(api, "POST", f"{V1}/jobs", data)["problems"]
    assert problem["problem"] == "is nested too deeply"


@FEWER
@given(anything, st.sampled_from(COMMANDS))
def test_commands_take_no_other_body(api: SimpleNamespace, body: Any, command: str) -> None:
    refused(api, "POST", f"{V1}/jobs/1/{command}", json.dumps(body).encode())


training = st.fixed_dictionaries(
    {},
    optional={
        "training_instance_type": texts,
        "model": st.just("base.safetensors") | anything,
        "dataset": st.just("zdm") | anything,
        "fm_type": st.sampled_from(["sd_1_5", "sd_xl", "SD_XL"]) | anything,
    },
)
kohya = sorted({name for row in SETTINGS.values() for name in row.kohya} - {"output_name"})
parameters = st.dictionaries(st.sampled_from(kohya) | st.text(max_size=5), anything, max_size=6)
params = st.fixed_dictionaries(
    {"training_params": training, "config_params": parameters | anything},
    optional={"enable_wd14_tagger": st.booleans() | anything, "wd14_tagger_params": anything},
)
trainings = st.one_of(
    st.fixed_dictionaries({"lora_train_type": st.just("kohya"), "params": params}),
    st.fixed_dictionaries({"lora_train_type": anything, "params": params | anything}),
    anything,
)
WHOLE = {"training_instance_type": "a", "model": "base.safetensors", "dataset": "zdm", "fm_type": "sd_1_5"}


@MANY
@given(trainings)
def test_no_request_of_the_other_shape_does_either(api: SimpleNamespace, body: Any) -> None:
    refused(api, "POST", f"{AWS}/trainings", json.dumps(body).encode())


@FEWER
@given(parameters)
@example({"save_every_n_epochs": "x", "max_train_epochs": [1], "network_args": {"a": None}, "lr_warmup_steps": "5%"})
@example({"sample_prompts": "/etc/passwd", "dataset_config": "/etc/passwd", "config_file": "/etc/passwd"})
def test_parameters_of_sd_scripts_make_a_job_that_can_be_read_or_none(
    api: SimpleNamespace, values: dict[str, Any]
) -> None:
    params = {"training_params": WHOLE, "config_params": {"output_name": "ok", **values}}
    body = {"lora_train_type": "kohya", "params": params}
    answer = api.client.post(f"{AWS}/trainings", json=body)
    assert answer.status_code in (201, 400), answer.text
    if answer.status_code == 201:
        (listed,) = api.client.get(f"{AWS}/trainings").json()["data"]["trainings"]
        assert (listed["id"], listed["modelName"]) == (answer.json()["data"]["id"], "ok.safetensors")
        assert listed["params"]["training_params"]["s3_data_path"] == str(api.home / "datasets" / "zdm")
        assert api.client("DELETE", f"{AWS}/trainings", json={"training_id_list": [listed["id"]]}).status_code == 204
    assert api.queue.jobs() == []


@FEWER
@given(
    st.sampled_from(
        [
            ("DELETE", f"{AWS}/trainings"),
            ("POST", f"{AWS}/datasets"),
            ("PUT", f"{AWS}/datasets/zdm"),
            ("PUT", f"{AWS}/datasets/none"),
            ("POST", f"{AWS}/datasets/zdm/crop"),
            ("POST", f"{V1}/datasets"),
            ("POST", f"{V1}/grids"),
            ("POST", f"{V1}/grids/1/draw"),
        ]
    ),
    anything,
)
def test_nor_does_any_other(api: SimpleNamespace, request_to: tuple[str, str], body: Any) -> None:
    refused(api, *request_to, json.dumps(body).encode())


@FEWER
@given(st.text(max_size=30), st.sampled_from(["limit", "before", "offset", "exclusive_start_key", "status", "lines"]))
@example("eyJpZCI6IDF9", "exclusive_start_key")
@example("e30=", "exclusive_start_key")
@example("W10=", "exclusive_start_key")
def test_no_query_makes_a_traceback(api: SimpleNamespace, value: str, name: str) -> None:
    paths = (f"{V1}/jobs", f"{V1}/datasets/zdm", f"{V1}/jobs/1/log", f"{AWS}/trainings", f"{AWS}/datasets")
    for path in paths:
        assert api.client.get(path, params={name: value}).status_code in (200, 400, 404, 422)


documents = st.lists(st.sampled_from([
    "rank = 0", "rank = 3", "[[dataset.subsets]]", "folder = 3", "[a.b.c]", "[[a.d]]", "rank.x = 3", "x = [", "]", "'",
    'preview_prompts = """', '"""', "subsets = {}", "# rank = 1", "[dataset]", "=", "\u202e = 1", "resolution = [[]]",
])).map("\n".join)  # fmt: skip
files = st.fixed_dictionaries({}, optional={"name": texts, "base64": texts | anything})
OF_A_CONFIG: dict[str, dict[str, Any]] = {
    "text": {"form": named | anything, "whole": anything},
    "form": {"config": configs, "job": anything},
    "format": {"text": documents | texts, "dataset": texts},
    "import": {"files": st.lists(files) | anything, "preset": texts},
    "export": {"form": named | anything},
}


@FEWER
@pytest.mark.parametrize("route", OF_A_CONFIG)
@given(data=st.data())
def test_no_text_or_file_of_a_config_makes_a_traceback(api: SimpleNamespace, route: str, data: Any) -> None:
    body = data.draw(st.fixed_dictionaries({}, optional=OF_A_CONFIG[route]) | anything)
    before = contents(api.home)
    content = json.dumps(body).encode()
    answer = api.client.post(f"{V1}/config/{route}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 404, 422), answer.text
    assert "Traceback" not in answer.text and contents(api.home) == before


@MANY
@given(documents)
def test_whatever_is_typed_as_a_config_is_read_or_told(api: SimpleNamespace, text: str) -> None:
    found = api.client.post(f"{V1}/config/format", json={"text": text}).json()
    lines = found["text"].count("\n") + 1
    assert found["form"] or found["problems"]
    assert all(each["line"] is None or 1 <= each["line"] <= lines for each in found["problems"])

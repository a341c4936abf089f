"""What the host's app has, and has kept, once the routes are on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

from lora_trainer.api import mount
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import OPEN, V1, Client, FakeHost


def routes_of(app: FastAPI) -> Counter[tuple[str, str]]:
    routes: list[Any] = app.router.routes
    return Counter((method, route.path) for route in routes for method in getattr(route, "methods", ()))


def test_mounting_again_doubles_nothing_and_takes_the_new_queue(app: FastAPI, host: FakeHost, tmp_path: Path) -> None:
    before = routes_of(app)
    other = Queue(tmp_path / "others")
    mount(app, other, None, host, OPEN, tmp_path / "others-datasets")
    assert routes_of(app) == before and set(before.values()) == {1}
    Client(app).post(f"{V1}/datasets", json={"name": "a"})
    assert (tmp_path / "others-datasets" / "a").is_dir()
    other.close()


def test_the_hosts_routes_and_its_handlers_of_errors_stay(app: FastAPI) -> None:
    @app.get("/sdapi/v1/ping")
    def ping() -> str:
        raise HTTPException(418)

    @app.exception_handler(Exception)
    @app.exception_handler(HTTPException)
    async def of_the_host(request: object, error: Exception) -> JSONResponse:
        return JSONResponse({"of": "host"}, 500)

    client = Client(app)
    assert client.get("/sdapi/v1/ping").json() == {"of": "host"}
    assert client.get(f"{V1}/jobs/7").json() == {"detail": "There is no job 7."}
    assert client.post(f"{V1}/jobs", json={}).status_code == 422


def test_the_hosts_own_description_of_its_api_has_every_route(app: FastAPI) -> None:
    described = Client(app).get("/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, found in described.items() for method in found} == {
        (method, path.replace(":path}", "}")) for method, path in routes_of(app) if path.startswith("/lora-trainer/")
    }


def test_loras_and_base_models_are_those_of_the_host(client: Client, host: FakeHost) -> None:
    (host.home / "Lora" / "sub").mkdir()
    (host.home / "Lora" / "sub" / "ずんだもん.safetensors").write_bytes(b"12345")
    (lora,) = client.get(f"{V1}/loras").json()["loras"]
    assert (lora["name"], lora["size"], Path(lora["file"]).read_bytes()) == ("ずんだもん", 5, b"12345")
    (model,) = client.get(f"{V1}/models").json()["models"]
    assert Path(model["file"]).read_bytes() == b"weights"

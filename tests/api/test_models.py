"""The host's base models, and what they are told to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import OPEN, V1, Client, FakeHost
from tests.inspecting.conftest import small
from tests.jobs.patience import until

__all__ = ["small"]

HASH = "0123456789"
Ask = Callable[..., Any]


@dataclass(frozen=True)
class Shelf(FakeHost):
    """A host with several checkpoints, which finds more when it looks again."""

    found: dict[str, Path] = field(default_factory=dict)
    later: dict[str, Path] = field(default_factory=dict)

    def checkpoints(self) -> list[tuple[str, Path]]:
        return list(self.found.items())

    def refresh_checkpoints(self) -> None:
        self.found.update(self.later)

    def current_checkpoint(self) -> str:
        return "xl.safetensors"


@pytest.fixture
def shelf(small: Callable[[str], Any], tmp_path: Path) -> Shelf:
    (tmp_path / "page.safetensors").write_text("<html>", encoding="utf-8")
    found = {
        f"anime/sd15.safetensors [{HASH}]": small("sd15").path,
        "xl.safetensors": small("sdxl").path,
        "page.safetensors": tmp_path / "page.safetensors",
        "gone.safetensors": tmp_path / "gone.safetensors",
    }
    return Shelf(home=tmp_path, found=found, later={"two.safetensors": small("sd2").path})


def client_of(shelf: Shelf, queue: Queue, access: Access = OPEN) -> Client:
    app = FastAPI()
    mount(app, queue, None, shelf, access, shelf.home / "datasets")
    return Client(app)


def all_read(client: Client) -> dict[str, Any]:
    """The list, once every file has been read."""
    until(lambda: client.get(f"{V1}/models").json()["reading"] == 0)
    listed: dict[str, Any] = client.get(f"{V1}/models").json()
    return listed


def test_each_base_model_is_told_with_where_that_was_read(shelf: Shelf, queue: Queue) -> None:
    listed = all_read(client_of(shelf, queue))
    models = {model["name"]: model for model in listed["models"]}

    assert listed["loaded"] == "xl.safetensors"
    assert list(models) == list(shelf.found)
    anime, xl = models[f"anime/sd15.safetensors [{HASH}]"], models["xl.safetensors"]
    assert (anime["family"], anime["hash"], anime["trainable"]) == ("sd15", HASH, True)
    assert (xl["family"], xl["prediction_type"], xl["precision"], xl["hash"]) == ("sdxl", "epsilon", "fp32", "")
    assert xl["size_bytes"] == shelf.found["xl.safetensors"].stat().st_size
    assert any("conditioner.embedders.1.model" in reason for reason in xl["reasons"])


def test_what_is_no_model_is_in_the_list_with_its_problem(shelf: Shelf, queue: Queue) -> None:
    models = {model["name"]: model for model in all_read(client_of(shelf, queue))["models"]}

    assert "a web page" in models["page.safetensors"]["problem"] and not models["page.safetensors"]["trainable"]
    assert "no such file" in models["gone.safetensors"]["problem"] and not models["gone.safetensors"]["trainable"]


def test_a_refresh_finds_what_came_since(shelf: Shelf, queue: Queue) -> None:
    client = client_of(shelf, queue)

    assert "two.safetensors" not in [model["name"] for model in client.get(f"{V1}/models").json()["models"]]
    listed = client.get(f"{V1}/models?refresh=1").json()["models"]
    assert "two.safetensors" in [model["name"] for model in listed]


def test_details_by_name_and_by_path(shelf: Shelf, queue: Queue, small: Callable[[str], Any]) -> None:
    client = client_of(shelf, queue)

    by_name = client.get(f"{V1}/models/details", params={"name": "xl.safetensors"}).json()
    by_path = client.get(f"{V1}/models/details", params={"name": str(small("sd2").path)}).json()
    assert (by_name["family"], by_path["family"]) == ("sdxl", "sd2")


def test_a_hash_is_told_when_it_is_asked_for_and_then_in_the_list(shelf: Shelf, queue: Queue) -> None:
    client = client_of(shelf, queue)
    sha = client.get(f"{V1}/models/hash", params={"name": "xl.safetensors"}).json()["sha256"]

    assert len(sha) == 64
    assert next(model for model in all_read(client)["models"] if model["name"] == "xl.safetensors")["hash"] == sha


@pytest.mark.parametrize("route", ["details", "hash"])
@pytest.mark.parametrize("name", ["", "unknown", "../../etc/passwd"])
def test_a_name_that_is_none_is_refused(shelf: Shelf, queue: Queue, route: str, name: str) -> None:
    answer = client_of(shelf, queue).get(f"{V1}/models/{route}", params={"name": name})

    assert answer.status_code == 422 and answer.json()["problems"][0]["setting"] == "name"


@pytest.mark.parametrize("route", ["details", "hash"])
def test_other_machines_are_told_of_no_file_outside_the_hosts_folders(shelf: Shelf, queue: Queue, route: str) -> None:
    listening = Access({"user": "password"}, None, listening_remotely=True, allowed_remotely=False)
    client = client_of(shelf, queue, listening)
    outside = Path(__file__).resolve()

    def ask(name: str) -> int:
        path = f"{V1}/models/{route}"
        return client.get(path, params={"name": name}, auth=("user", "password")).status_code

    assert (ask(str(outside)), ask("xl.safetensors")) == (422, 200)

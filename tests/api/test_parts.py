"""The files that a Flux base needs beside it, as the page is told of them, and as a job gets them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer.api import Access, mount
from lora_trainer.api.places import Places
from lora_trainer.config import BadInput, Config
from lora_trainer.config.form import as_form
from lora_trainer.inspecting.parts import PARTS
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work
from tests.api.conftest import OPEN, V1, Client, FakeHost
from tests.flux_files import FluxFiles, make_flux
from tests.inspecting.conftest import small

__all__ = ["small"]

LISTENING = Access({"user": "password"}, None, listening_remotely=True, allowed_remotely=False)


@dataclass(frozen=True)
class FluxHost(FakeHost):
    """A host with a Flux transformer, and folders for its parts elsewhere."""

    def checkpoints(self) -> list[tuple[str, Path]]:
        return [("flux", self.home / "base" / "flux.safetensors"), ("xl", self.home / "base" / "xl.safetensors")]

    def part_folders(self) -> list[Path]:
        return [self.home / "parts" / "encoders", self.home / "parts" / "VAEs"]


@pytest.fixture
def flux_host(tmp_path: Path) -> FluxHost:
    host = FluxHost(home=tmp_path)
    (tmp_path / "base").mkdir()
    encoders, vaes = host.part_folders()
    encoders.mkdir(parents=True)
    vaes.mkdir()
    return host


@pytest.fixture
def made(tmp_path: Path, flux_host: FluxHost) -> FluxFiles:
    """The transformer where the host has it, and its parts in a folder that nobody looks into."""
    files = make_flux(tmp_path / "made", "schnell")
    moved = shutil.move(files.transformer, tmp_path / "base" / "flux.safetensors")
    return FluxFiles(Path(moved), files.clip_l, files.t5xxl, files.ae, files.t5_tokenizer)


def settle(files: FluxFiles, host: FluxHost) -> dict[str, Any]:
    """All parts in the host's folders."""
    encoders, vaes = host.part_folders()
    return {
        part: str(shutil.copy(path, vaes if part == "ae" else encoders)) for part, path in sorted(files.parts.items())
    }


def client_of(host: FluxHost, queue: Queue, access: Access = OPEN, **options: Any) -> Client:
    app = FastAPI()
    mount(app, queue, None, host, access, host.home / "datasets")
    return Client(app, **options)


def parts_of(client: Client, **query: str) -> dict[str, Any]:
    answer = client.get(f"{V1}/models/parts", params={"name": "flux", **query})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_what_is_missing_is_told_with_the_folder_for_it(made: FluxFiles, flux_host: FluxHost, queue: Queue) -> None:
    told = parts_of(client_of(flux_host, queue))

    encoders, vaes = map(str, flux_host.part_folders())
    assert (told["family"], told["variant"]) == ("flux", "schnell")
    assert [part["setting"] for part in told["parts"]] == list(PARTS)
    assert [part["title"] for part in told["parts"]] == ["CLIP-L", "T5-XXL", "Autoencoder", "T5 tokenizer"]
    assert [part["where"] for part in told["parts"]] == [encoders, encoders, vaes, encoders]
    assert all(part["file"] == "" and "missing" in part["problem"] and part["remedy"] for part in told["parts"])
    assert told["others"] == {part: [] for part in PARTS}


def test_what_comes_into_the_hosts_folders_is_found(made: FluxFiles, flux_host: FluxHost, queue: Queue) -> None:
    client = client_of(flux_host, queue)
    parts_of(client)
    there = settle(made, flux_host)
    told = parts_of(client)

    assert {part["setting"]: part["file"] for part in told["parts"]} == there
    assert not any(part["problem"] or part["remedy"] for part in told["parts"])
    assert told["others"] == {part: [path] for part, path in there.items()}


def test_a_file_that_the_form_names_counts(made: FluxFiles, flux_host: FluxHost, queue: Queue) -> None:
    settle(made, flux_host)
    client = client_of(flux_host, queue)

    clip_l, t5xxl, *_ = parts_of(client, clip_l=str(made.clip_l), t5xxl=str(made.ae))["parts"]
    assert (clip_l["file"], clip_l["problem"]) == (str(made.clip_l), "")
    assert (t5xxl["file"], t5xxl["problem"]) == (
        str(made.ae),
        "holds the autoencoder of Flux or SD3, which can't be used as T5-XXL",
    )


def test_other_families_have_none(
    made: FluxFiles, flux_host: FluxHost, queue: Queue, small: Any, tmp_path: Path
) -> None:
    shutil.copy(small("sdxl").path, tmp_path / "base" / "xl.safetensors")
    told = parts_of(client_of(flux_host, queue), name="xl")

    assert told == {"family": "sdxl", "variant": "", "parts": [], "others": {}}


def test_a_base_is_listed_with_its_variant(made: FluxFiles, flux_host: FluxHost, queue: Queue) -> None:
    told = client_of(flux_host, queue).get(f"{V1}/models/details", params={"name": "flux"}).json()

    assert (told["family"], told["variant"], told["parts"], told["trainable"]) == ("flux", "schnell", [], True)


def test_a_job_gets_the_files_that_its_config_leaves_open(made: FluxFiles, flux_host: FluxHost) -> None:
    there = settle(made, flux_host)
    settled = Places(flux_host, flux_host.home / "datasets").settled({"base_model": "flux", "clip_l": str(made.clip_l)})

    assert {part: settled[part] for part in PARTS} == there | {"clip_l": str(made.clip_l)}


def test_a_form_leaves_open_what_is_found_by_itself(made: FluxFiles, flux_host: FluxHost) -> None:
    there = settle(made, flux_host)
    config = Config(base_model=str(made.transformer), **there | {"ae": str(made.ae)})
    form = Places(flux_host, flux_host.home / "datasets").named_form(as_form(config))

    assert form["base_model"] == "flux"
    assert {part: form[part] for part in PARTS} == dict.fromkeys(PARTS, "") | {"ae": str(made.ae)}


def test_a_config_without_base_or_parts_is_left_as_it_is(made: FluxFiles, flux_host: FluxHost) -> None:
    places = Places(flux_host, flux_host.home / "datasets")

    assert not places.settled({"base_model": "flux"}).keys() & set(PARTS)
    for table in ({}, {"base_model": ""}, {"base_model": "gone"}, {"base_model": 7}):
        assert not places.settled(table).keys() & set(PARTS)


def test_other_machines_may_use_the_folders_of_parts_and_are_told_of_no_other(
    made: FluxFiles, flux_host: FluxHost, queue: Queue, tmp_path: Path
) -> None:
    there = settle(made, flux_host)
    places = Places(flux_host, tmp_path / "datasets", anywhere=False, models=tmp_path / "taggers")
    inside = Config(base_model=str(made.transformer), output_folder=str(tmp_path / "Lora"), **there)
    places.inside(Work(inside))
    away = shutil.copy(made.transformer, tmp_path / "away.safetensors")
    assert not places.settled({"base_model": str(away)}).keys() & set(PARTS)
    assert places.settled({"base_model": "flux"}).keys() >= set(PARTS)
    with pytest.raises(BadInput, match="t5xxl = .* lies outside the folders"):
        places.inside(Work(Config(base_model=str(made.transformer), t5xxl=str(made.t5xxl))))
    client = client_of(flux_host, queue, LISTENING, auth=("user", "password"))
    answer = client.get(f"{V1}/models/parts", params={"name": "flux", "ae": str(made.ae)})
    assert answer.status_code == 422 and answer.json()["problems"][0]["setting"] == "ae"
    near = shutil.copytree(tmp_path / "made", tmp_path / "text_encoder")
    assert all(str(near) not in path for paths in parts_of(client)["others"].values() for path in paths)

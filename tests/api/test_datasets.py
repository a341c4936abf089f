"""Datasets by the API: what arrives is held against what was sent, and nothing that was there is lost."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, ConfigOf, png

SETS = f"{V1}/datasets"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["zdm", "ずんだもん", "with space", "a.b", "100%"])
def test_a_set_is_made_filled_and_looked_at(client: Client, tmp_path: Path, name: str) -> None:
    assert client.post(SETS, json={"name": name}).json() == {"name": name}
    here = f"{SETS}/{quote(name)}"
    files = {"10_zdm/1.png": png("red", (80, 64)), "10_zdm/1.txt": "赤, red".encode(), "5_x y/二.png": png("blue")}
    for path, data in files.items():
        assert client.put(f"{here}/files/{quote(path)}", content=data).status_code == 201
        assert client.get(f"{here}/files/{quote(path)}").content == data
    assert everything(tmp_path / "datasets" / name) == files
    assert [found["name"] for found in client.get(SETS).json()["datasets"]] == [name]
    shown = client.get(here).json()
    assert shown["count"] == 2
    assert shown["pictures"] == [
        {"path": "5_x y/二.png", "width": 64, "height": 64, "caption": ""},
        {"path": "10_zdm/1.png", "width": 80, "height": 64, "caption": "赤, red"},
    ]
    assert client.get(f"{here}?offset=1&limit=1").json()["pictures"] == shown["pictures"][1:]


def test_a_file_that_is_there_is_never_replaced(client: Client, dataset: Path) -> None:
    before = everything(dataset)
    same = client.put(f"{SETS}/zdm/files/10_zdm/a.png", content=before["10_zdm/a.png"])
    other = client.put(f"{SETS}/zdm/files/10_zdm/a.png", content=png("red"))
    assert (same.status_code, other.status_code) == (200, 409)
    assert everything(dataset) == before
    assert client.post(SETS, json={"name": "zdm"}).status_code == 409


@pytest.mark.parametrize("data", [b"", b"no picture", png()[:100], png()[:60], b"<svg/>"])
def test_what_is_no_whole_picture_is_refused_and_leaves_nothing(client: Client, dataset: Path, data: bytes) -> None:
    before = everything(dataset)
    answer = client.put(f"{SETS}/zdm/files/10_zdm/new.png", content=data)
    assert answer.status_code == 422 and answer.json()["problems"][0]["value"] == "new.png"
    assert everything(dataset) == before


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(client: Client, dataset: Path) -> None:
    before = everything(dataset)

    async def endless():
        while True:
            yield b"x" * 4096

    for data in (b"x" * 70_000, endless()):
        assert client.put(f"{SETS}/zdm/files/10_zdm/a2.txt", content=data).status_code == 413
    assert everything(dataset) == before


OUTSIDE = (
    "../b.png", "..%2Fb.png", "10_zdm%2F..%2F..%2Fb.png", "%2Fetc%2Fb.png", "a%5Cb.png", "originals/b.png",
    "left_out/b.png", ".lora_trainer/b.png",
    ".b.png", "10_zdm/.b.png", "1/2/b.png", "10_a/10_b/b.png", "C:b.png", "con.png", "a%00.png",
    "b.exe", "b.html", "b", "10_zdm/", "b.png.", "a" * 300 + ".png", "0_zdm/b.png", "b.zip",
)  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_stays_in_the_folders_of_pictures(client: Client, dataset: Path, path: str) -> None:
    before = everything(dataset.parent.parent)
    assert client.put(f"{SETS}/zdm/files/{path}", content=png()).status_code in (404, 405, 422)
    assert client.get(f"{SETS}/zdm/files/{path}").status_code in (404, 405, 422)
    assert everything(dataset.parent.parent) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40), st.text(max_size=40) | st.just("10_zdm/b.png"))
def test_no_name_leads_out_of_the_datasets(client: Client, dataset: Path, name: str, path: str) -> None:
    """As the server gives a path to the app, which is any text."""
    outside = dataset.parent.parent
    before = {file for file in everything(outside) if not file.startswith("datasets")}
    for text in (name, path, f"../{name}", f"{name}/../{path}"):
        quoted = quote(text.encode("utf-8", "replace"), safe="")
        answer = client.put(f"{SETS}/{quoted}/files/{quote(path.encode('utf-8', 'replace'))}", content=png())
        assert answer.status_code < 500
        answer = client.put(f"{SETS}/zdm/files/{quoted}.png", content=png())
        assert answer.status_code < 500
    assert {file for file in everything(outside) if not file.startswith("datasets")} == before
    assert {entry.name for entry in dataset.parent.iterdir()} == {"zdm"}


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "../x", ".hidden", "con", "a" * 300, "a\tb", " a", "x:y"])
def test_a_set_has_a_name_that_every_disk_takes(client: Client, dataset: Path, name: str) -> None:
    answer = client.post(SETS, json={"name": name})
    assert answer.status_code == 422 and answer.json()["problems"][0]["setting"] == "name"
    assert [entry.name for entry in dataset.parent.iterdir()] == ["zdm"]


def test_a_set_that_is_deleted_is_only_put_aside(client: Client, dataset: Path, tmp_path: Path) -> None:
    before = everything(dataset)
    for turn in ("zdm", "zdm-2"):
        assert client.delete(f"{SETS}/zdm").status_code == 204
        assert client.get(f"{SETS}/zdm").status_code == 404 and client.get(SETS).json() == {"datasets": []}
        assert everything(tmp_path / "datasets" / ".deleted" / turn) == before
        client.post(SETS, json={"name": "zdm"})
        for path, data in before.items():
            client.put(f"{SETS}/zdm/files/{path}", content=data)
    assert client.delete(f"{SETS}/.deleted").status_code == 404


def test_a_set_that_a_job_waits_for_stays(client: Client, queue: Queue, dataset: Path, config_of: ConfigOf) -> None:
    client.post(f"{V1}/jobs", json={"config": config_of()})
    answer = client.delete(f"{SETS}/zdm")
    assert answer.status_code == 409 and "Job 1" in answer.json()["detail"] and dataset.is_dir()
    queue.stop(1)
    assert client.delete(f"{SETS}/zdm").status_code == 204


def test_a_set_that_is_not_there_is_not_found(client: Client, dataset: Path) -> None:
    assert client.get(f"{SETS}/other").status_code == 404
    assert client.put(f"{SETS}/other/files/10_a/a.png", content=png()).status_code == 404
    assert client.get(f"{SETS}/zdm/files/10_zdm/other.png").status_code == 404
    assert [entry.name for entry in dataset.parent.iterdir()] == ["zdm"]

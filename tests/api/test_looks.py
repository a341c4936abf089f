"""Cuts before they are made, and the doctor's round, by the API: what needs other packages is done elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image

from lora_trainer.api import Access, mount
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import OPEN, V1, Client, FakeHost, ended, png
from tests.flux_files import write_tokenizer

HERE = f"{V1}/datasets/zdm"
BY_CENTRE = {"crop": "centre", "crop_size": [64, 64]}


def asked(client: Client, what: str, **body: Any) -> dict[str, Any]:
    """The task once it has ended."""
    return ended(client.post(f"{HERE}/{what}", json=body))


def test_a_cut_around_the_centre_is_the_largest_in_the_middle(client: Client, dataset: Path) -> None:
    Image.new("RGB", (200, 100)).save(dataset / "10_zdm" / "wide.png")
    facts = asked(client, "cuts", config=BY_CENTRE)["result"]["cuts"]
    cuts = {cut["file"]: cut for cut in facts}
    assert cuts["wide.png"]["box"] == (50, 0, 150, 100) and not cuts["wide.png"]["enlarged"]
    assert (cuts["wide.png"]["width"], cuts["wide.png"]["height"]) == (200, 100)
    assert cuts["a.png"]["box"] == (0, 0, 64, 64) and cuts["a.png"]["around"] == "centre"


def test_pictures_are_chosen_by_number_or_from_the_first_ones(client: Client, dataset: Path) -> None:
    for name in "bcd":
        (dataset / "10_zdm" / f"{name}.png").write_bytes(png())
    assert [cut["file"] for cut in asked(client, "cuts", config=BY_CENTRE, most=2)["result"]["cuts"]] == [
        "a.png",
        "b.png",
    ]
    ids = [each["id"] for each in client.get(f"{HERE}/pictures").json()["pictures"]]
    cuts = asked(client, "cuts", config=BY_CENTRE, pictures=[ids[3], 999999, ids[1]])["result"]["cuts"]
    assert [cut["file"] for cut in cuts] == ["d.png", "b.png"]


def test_a_form_says_how_to_cut_whatever_else_is_wrong_in_it(client: Client, dataset: Path) -> None:
    form = {"crop": "centre", "crop_size": "128x64", "bucket_no_upscale": True, "rank": "many"}
    [cut] = asked(client, "cuts", form=form)["result"]["cuts"]
    assert cut["size"] == (64, 32) and cut["box"] == (0, 16, 64, 48)


@pytest.mark.parametrize("config", [{"crop_size": [8, 64]}, {"crop": "square"}, {"crop_size": [65, 64]}])
def test_a_cut_that_cannot_be_is_refused(client: Client, dataset: Path, config: dict[str, Any]) -> None:
    assert client.post(f"{HERE}/cuts", json={"config": {**BY_CENTRE, **config}}).status_code == 422


def test_a_picture_that_cannot_be_read_has_no_cut(client: Client, dataset: Path) -> None:
    (dataset / "10_zdm" / "bad.png").write_bytes(b"no picture")
    assert [cut["file"] for cut in asked(client, "cuts", config=BY_CENTRE)["result"]["cuts"]] == ["a.png"]


def test_what_stands_out_is_what_a_cut_is_made_around(client: Client, dataset: Path) -> None:
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste("black", (20, 60, 80, 140))
    picture.save(dataset / "10_zdm" / "left.png")
    config = {"crop": "focus", "crop_size": [96, 96]}
    cuts = {cut["file"]: cut for cut in asked(client, "cuts", config=config)["result"]["cuts"]}
    left, top, right, bottom = cuts["left.png"]["box"]
    assert cuts["left.png"]["around"] == "subject" and right <= 200
    assert left <= 20 and right >= 80 and top <= 60 and bottom >= 140


def test_the_doctor_names_pictures_by_their_numbers(client: Client, dataset: Path) -> None:
    inner = dataset / "10_zdm"
    (inner / "b.png").write_bytes((inner / "a.png").read_bytes())
    (inner / "c.png").write_bytes(b"no picture")
    task = asked(client, "doctor", config={"family": "sd15", "resolution": [64, 64], "buckets": False})
    assert task["state"] == "finished", task
    result = task["result"]
    ids = {each["file"]: each["id"] for each in client.get(f"{HERE}/pictures").json()["pictures"]}
    found = {finding["kind"]: finding for finding in result["findings"]}
    assert result["pictures"] == 3 and {"unreadable", "duplicate", "no-caption"} <= found.keys()
    assert found["unreadable"]["leave_out"] == [ids["c.png"]]
    assert found["duplicate"]["files"] == ["a.png", "b.png"] or found["duplicate"]["files"] == ["b.png", "a.png"]
    assert sorted(found["duplicate"]["pictures"]) == sorted([ids["a.png"], ids["b.png"]])
    assert len(found["duplicate"]["leave_out"]) == 1 and all(each["remedy"] for each in result["findings"])


def test_the_doctor_counts_captions_of_flux_by_its_own_tokenizer(client: Client, dataset: Path, tmp_path: Path) -> None:
    (dataset / "10_zdm" / "a.txt").write_text("a photo of a blob " * 200, encoding="utf-8")
    flux = {"family": "flux", "resolution": [64, 64], "buckets": False, "t5_length": 256}
    tokenizer = str(write_tokenizer(tmp_path / "T5 tokenizer.json"))
    task = asked(client, "doctor", config={**flux, "t5_tokenizer": tokenizer})
    assert task["state"] == "finished", task
    assert [each["kind"] for each in task["result"]["findings"]] == ["cut-off"] and not task["result"]["notices"]
    [notice] = asked(client, "doctor", config=flux)["result"]["notices"]
    assert "t5_tokenizer: is not known" in notice


def test_from_other_machines_the_doctor_reads_no_tokenizer_elsewhere(
    queue: Queue, host: FakeHost, dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    app = FastAPI()
    listening = Access({"user": "password"}, None, listening_remotely=True, allowed_remotely=False)
    mount(app, queue, None, host, listening, dataset.parent)
    other = Client(app, auth=("user", "password"))
    config = {
        "family": "flux",
        "t5_tokenizer": str(write_tokenizer(tmp_path_factory.mktemp("away") / "tokenizer.json")),
    }
    answer = other.post(f"{HERE}/doctor", json={"config": config})
    assert answer.status_code == 422 and "lies outside the folders" in answer.json()["problems"][0]["problem"]


@pytest.mark.parametrize("what", ["doctor", "cuts"])
def test_a_python_that_cannot_do_it_is_told_of(queue: Queue, host: FakeHost, dataset: Path, what: str) -> None:
    app = FastAPI()
    mount(app, queue, None, replace(host, python=str(dataset / "no python")), OPEN, dataset.parent)
    task = asked(Client(app), what, config={"crop": "focus", "resolution": [64, 64], "buckets": False})
    assert task["state"] == "failed" and task["detail"]

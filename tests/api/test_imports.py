"""Pictures that come into a set by the API: uploaded one by one, or lying in a folder."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lora_trainer.api import Access, mount
from lora_trainer.api.imports import ARRIVING
from lora_trainer.jobs.queue import Queue
from tests.api.conftest import V1, Client, FakeHost, ended, png

UPLOADS = f"{V1}/uploads"


def upload(client: Client, files: dict[str, bytes]) -> str:
    id: str = client.post(UPLOADS).json()["upload"]
    for path, data in files.items():
        assert client.put(f"{UPLOADS}/{id}/files/{quote(path)}", content=data).status_code == 201
    return id


def imported(client: Client, name: str, **body: Any) -> dict[str, Any]:
    """The task once it has ended."""
    return ended(client.post(f"{V1}/datasets/{quote(name)}/import", json=body))


def below(folder: Path) -> set[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {file for file in files if not file.startswith(".lora_trainer")}


def zipped(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_what_is_uploaded_becomes_a_set(client: Client, tmp_path: Path) -> None:
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 64), "red").save(turned, "JPEG", exif=exif)
    files = {"１.png": png("blue"), "１.txt": "ずんだ, blue".encode(), "b c.JPG": turned.getvalue()}
    task = imported(client, "mine", upload=upload(client, files), repeats=7, trigger_word="zdm")
    assert task["state"] == "finished" and (task["result"]["added"], task["result"]["left_out"]) == (2, [])
    place = tmp_path / "datasets" / "mine"
    assert below(place) == {
        "7_zdm/１.png", "7_zdm/１.txt", "7_zdm/b c.png", "originals/１.png", "originals/b c.jpg",
    }  # fmt: skip
    with Image.open(place / "7_zdm" / "b c.png") as upright:
        assert upright.size == (64, 80)
    pictures = client.get(f"{V1}/datasets/mine/pictures").json()["pictures"]
    assert {each["file"]: each["caption"] for each in pictures} == {"b c.png": "", "１.png": "ずんだ, blue"}
    assert not list((tmp_path / "datasets" / ARRIVING).iterdir())


def test_folders_and_zips_keep_the_repeats_they_say(client: Client, tmp_path: Path) -> None:
    files = {
        "set/10_a/1.png": png("red"),
        "set/10_a/1.caption": b"red",
        "more.zip": zipped({"5_b/2.png": png("blue"), "5_b/2.txt": b"blue"}),
    }
    assert imported(client, "mine", upload=upload(client, files))["result"]["added"] == 2
    names = {path for path in below(tmp_path / "datasets" / "mine") if not path.startswith("originals")}
    assert names == {"10_a/1.png", "10_a/1.txt", "5_b/2.png", "5_b/2.txt"}


def test_a_bad_file_is_named_with_its_reason_and_the_rest_goes_on(client: Client, tmp_path: Path) -> None:
    files = {"good.png": png(), "text.png": b"only text", "cut.png": png()[:60], "broken.zip": b"PK no zip"}
    result = imported(client, "mine", upload=upload(client, files))["result"]
    assert result["added"] == 1
    assert {each["setting"] for each in result["left_out"]} == {"text.png", "cut.png", "broken.zip"}
    assert all(each["problem"] and each["remedy"] for each in result["left_out"])


def test_without_a_single_picture_there_is_no_set(client: Client, tmp_path: Path) -> None:
    for files in ({"text.png": b"only text"}, {"broken.zip": b"no zip"}, {}):
        task = imported(client, "mine", upload=upload(client, files))
        assert task["state"] == "failed" and task["problems"], files
        assert not (tmp_path / "datasets" / "mine").exists()


def test_the_same_pictures_again_are_counted_and_not_added(client: Client, tmp_path: Path) -> None:
    imported(client, "mine", upload=upload(client, {"a.png": png("red")}))
    before = below(tmp_path / "datasets" / "mine")
    result = imported(client, "mine", upload=upload(client, {"b.png": png("red")}))["result"]
    assert (result["added"], result["already"]) == (0, 1) and below(tmp_path / "datasets" / "mine") == before


def test_a_folder_of_this_machine_is_imported(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "pictures of mine"
    source.mkdir()
    (source / "a.png").write_bytes(png())
    assert imported(client, "mine", folder=str(source))["result"]["added"] == 1
    assert (source / "a.png").read_bytes() == png()


def test_a_folder_outside_is_not_read_for_another_machine(
    queue: Queue, host: FakeHost, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    app = FastAPI()
    open_to_all = Access(users=None, gradio_app=None, listening_remotely=True, allowed_remotely=True)
    mount(app, queue, None, host, open_to_all, tmp_path / "datasets")
    client = Client(app, "http://example.org")
    outside, inside = tmp_path_factory.mktemp("private"), tmp_path / "datasets" / "old"
    inside.mkdir(parents=True)
    for folder in (outside, inside):
        (folder / "a.png").write_bytes(png())
    (tmp_path / "datasets" / "link").symlink_to(outside, target_is_directory=True)
    for path in (str(outside), f"{inside}/../../../{outside.name}", str(tmp_path / "datasets" / "link")):
        answer = client.post(f"{V1}/datasets/mine/import", json={"folder": path})
        assert answer.status_code == 422 and "outside" in answer.json()["problems"][0]["problem"]
    assert imported(client, "mine", folder=str(inside))["result"]["added"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {}, {"folder": ""}, {"folder": "pictures"}, {"folder": 5}, {"upload": "a", "else": 1},
        {"folder": os.sep, "background": "pink"}, {"folder": os.sep, "repeats": 0},
        {"folder": os.sep, "caption_extension": ".exe"},
    ],
)  # fmt: skip
def test_an_import_that_cannot_be_is_refused(client: Client, tmp_path: Path, body: dict[str, Any]) -> None:
    assert client.post(f"{V1}/datasets/mine/import", json=body).status_code in (404, 422)
    assert not (tmp_path / "datasets" / "mine").exists()


@pytest.mark.parametrize("name", ["..", ".hidden", "con", "a:b"])
def test_a_set_has_a_name_that_every_disk_takes(client: Client, tmp_path: Path, name: str) -> None:
    answer = client.post(f"{V1}/datasets/{quote(name)}/import", json={"folder": str(tmp_path)})
    assert answer.status_code in (404, 405, 422)
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize("path", ["a.exe", "a", ".hidden.png", "a/.git/b.png", "__MACOSX/a.png", "a/" * 20 + "b.png"])
def test_what_no_set_has_is_refused_before_it_is_sent(client: Client, tmp_path: Path, path: str) -> None:
    id = client.post(UPLOADS).json()["upload"]
    answer = client.put(f"{UPLOADS}/{id}/files/{quote(path)}", content=png())
    assert answer.status_code == 422 and answer.json()["problems"][0]["remedy"]
    assert not below(tmp_path / "datasets" / ARRIVING / id)


def test_a_file_is_sent_once_and_never_replaced(client: Client, tmp_path: Path) -> None:
    id = upload(client, {"a.png": png("red")})
    assert client.put(f"{UPLOADS}/{id}/files/a.png", content=png("blue")).status_code == 409
    assert (tmp_path / "datasets" / ARRIVING / id / "a.png").read_bytes() == png("red")


def test_a_caption_that_is_too_large_leaves_nothing(client: Client, tmp_path: Path) -> None:
    id = client.post(UPLOADS).json()["upload"]
    assert client.put(f"{UPLOADS}/{id}/files/a.txt", content=b"x" * 70_000).status_code == 413
    assert not below(tmp_path / "datasets" / ARRIVING / id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.from_regex(r"(\.\./|/|\\|C:|a|b/){1,8}x\.png", fullmatch=True))
def test_no_name_leads_out_of_an_upload(client: Client, tmp_path: Path, path: str) -> None:
    id = client.post(UPLOADS).json()["upload"]
    for text in (path, f"{path}.png"):
        quoted = quote(text.encode("utf-8", "replace"), safe="")
        assert client.put(f"{UPLOADS}/{id}/files/{quoted}", content=b"x").status_code < 500
    inside = tmp_path / "datasets" / ARRIVING
    home = {tmp_path / "base.safetensors", *tmp_path.glob("Lora/*"), *(tmp_path / "queue").rglob("*")}
    written = {file for file in tmp_path.rglob("*") if file.is_file() and not file.is_relative_to(inside)}
    assert {file for file in written if file.read_bytes() == b"x"} <= home
    assert client.delete(f"{UPLOADS}/{id}").status_code == 204 and not (inside / id).exists()


@pytest.mark.parametrize("id", ["x", "..", "0" * 32, "../" + "a" * 29])
def test_an_upload_that_is_not_there_is_not_found(client: Client, dataset: Path, id: str) -> None:
    assert client.put(f"{UPLOADS}/{quote(id, safe='')}/files/a.png", content=png()).status_code == 404
    assert client.post(f"{V1}/datasets/zdm/import", json={"upload": id}).status_code == 404
    assert client.delete(f"{UPLOADS}/{quote(id, safe='')}").status_code in (404, 405)

from __future__ import annotations

import errno
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download

from lora_trainer.config import BadInput
from lora_trainer.jobs.events import silent
from lora_trainer.tagging import weights
from lora_trainer.tagging.taggers import TAGGERS
from lora_trainer.tagging.weights import folder_with, read_tokenizer

NAME, REPOSITORY = "wd-v3", "SmilingWolf/wd-swinv2-tagger-v3"
COMMIT = "627aef95638667ddcaa3ac8ae625e88ea5b02f51"
FILES = {"model.onnx": bytes(range(256)) * 4000, "selected_tags.csv": b"tag_id,name,category,count\n"}
CLOSED = "http://127.0.0.1:9"


class Hub(ThreadingHTTPServer):
    """The hub's answers for one repository, as far as a download needs them. `breaks`: half-way through the model."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.breaks = False
        self.refuses = 0
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._file(self.path.rsplit("/", 1)[-1], only_head=True)

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
        if self.server.refuses:
            self.send_error(self.server.refuses)
        elif self.path.startswith("/api/models/"):
            sizes = [{"rfilename": name, "size": len(content)} for name, content in FILES.items()]
            others = [{"rfilename": "model.safetensors", "size": 10**9}]
            self._body(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": sizes + others}).encode())
        else:
            self._file(self.path.rsplit("/", 1)[-1])

    def _file(self, name: str, only_head: bool = False) -> None:
        content = FILES[name]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._body(content[start:], 206 if start else 200, only_head, **headers)

    def _body(self, body: bytes, code: int = 200, only_head: bool = False, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if only_head:
            return
        if self.server.breaks and len(body) > 1000:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    _use(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    answering = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    answering.start()
    yield server
    server.shutdown()
    answering.join()
    server.server_close()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _use(monkeypatch, tmp_path, CLOSED)


def _use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    """The hub at that address, with an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    place = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", place)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or FILES:
        (folder / name).write_bytes(FILES[name])
    return folder


def cached(tmp_path: Path) -> Path:
    """The folder that another program has downloaded into the hub's cache."""
    repository = tmp_path / "cache" / f"models--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return put(repository / "snapshots" / COMMIT)


def test_the_models_folder_is_looked_into_first(tmp_path: Path, offline: None) -> None:
    own = put(tmp_path / "models" / "taggers" / NAME)
    cached(tmp_path)
    assert folder_with(NAME, tmp_path / "models", silent) == own


def test_then_the_hubs_cache(tmp_path: Path, offline: None) -> None:
    snapshot = cached(tmp_path)
    put(tmp_path / "models" / "taggers" / NAME, "selected_tags.csv")
    assert folder_with(NAME, tmp_path / "models", silent) == snapshot
    (snapshot / "model.onnx").unlink()
    with pytest.raises(BadInput):
        folder_with(NAME, tmp_path / "models", silent)


def test_offline_one_sentence_names_files_repository_and_folder(tmp_path: Path, offline: None) -> None:
    own = tmp_path / "models" / "taggers" / NAME
    with pytest.raises(BadInput) as error:
        folder_with(NAME, tmp_path / "models", silent)
    assert str(error.value) == (
        f'tagger = "wd-v3": its files are not here and {CLOSED} cannot be reached. Connect to the internet, or'
        f" download model.onnx (467 MB) and selected_tags.csv (0.3 MB) from {CLOSED}/{REPOSITORY}/tree/main"
        f" and put them into {own}."
    )
    put(own, "selected_tags.csv")
    with pytest.raises(BadInput, match=r"download model\.onnx \(467 MB\) from .* and put it into"):
        folder_with(NAME, tmp_path / "models", silent)


@pytest.mark.parametrize("name", TAGGERS)
def test_offline_every_tagger_names_all_its_files(tmp_path: Path, offline: None, name: str) -> None:
    with pytest.raises(BadInput) as error:
        folder_with(name, tmp_path, silent)
    assert all(file in str(error.value) for file in (TAGGERS[name].repository, *TAGGERS[name].files))


def test_a_download_tells_its_bytes_and_asks_for_nothing_else(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TOLD_SECONDS", 0.001)
    told: list[dict[str, Any]] = []
    folder = folder_with(NAME, tmp_path / "models", lambda kind, /, **facts: told.append({"kind": kind, **facts}))
    assert folder == tmp_path / "models" / "taggers" / NAME
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    total = sum(map(len, FILES.values()))
    assert told[-1] == {"kind": "download", "name": NAME, "done": total, "total": total}
    assert [event["done"] for event in told] == sorted(event["done"] for event in told)
    assert not any("safetensors" in path for path in hub.asked)
    asked = len(hub.asked)
    assert folder_with(NAME, tmp_path / "models", silent) == folder
    assert len(hub.asked) == asked


def test_a_download_leaves_what_somebody_put_there(tmp_path: Path, hub: Hub) -> None:
    own = put(tmp_path / "taggers" / NAME, "selected_tags.csv")
    (own / "selected_tags.csv").write_bytes(b"my own")
    assert folder_with(NAME, tmp_path, silent) == own
    assert (own / "selected_tags.csv").read_bytes() == b"my own"
    assert (own / "model.onnx").read_bytes() == FILES["model.onnx"]


def test_a_download_that_broke_goes_on_where_it_was(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # what is written at a time: 10 MiB
    hub.breaks = True
    with pytest.raises(BadInput, match=r"cannot be reached.*download model\.onnx"):
        folder_with(NAME, tmp_path, silent)
    assert not (tmp_path / "taggers" / NAME / "model.onnx").exists()
    hub.breaks, hub.asked = False, []
    folder = folder_with(NAME, tmp_path, silent)
    assert (folder / "model.onnx").read_bytes() == FILES["model.onnx"]
    assert any(re.search(r"model\.onnx bytes=\d+-", path) for path in hub.asked)


def test_a_refusal_is_told_with_its_number(tmp_path: Path, hub: Hub) -> None:
    hub.refuses = 403
    with pytest.raises(BadInput, match=r"refuses them \(answer 403\)\. Try again later, or download model\.onnx"):
        folder_with(NAME, tmp_path, silent)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, r"the disk is full\. Make room, or"),
        (errno.EACCES, r"cannot be written\. Give yourself the right"),
    ],
)
def test_a_folder_that_cannot_be_filled_is_told(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def fail(*words: object, **options: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(BadInput, match=sentence):
        folder_with(NAME, tmp_path, silent)


@pytest.mark.parametrize("content", [b"", b'{"version": "1.0", "trunc', b"\xff"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"tokenizer\.json.*damaged or cut off"):
        read_tokenizer(path)

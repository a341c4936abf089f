"""What goes wrong on this side is told in a sentence, too, under a status that says whose turn it is."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.api.answers import Answer
from lora_trainer.hosts.host import HostProblem
from lora_trainer.jobs.queue import Queue, QueueFailed
from tests.api.conftest import V1, Client, ConfigOf, FakeHost, png

TROUBLE = (
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 507, "Make room"),
    (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)), 422, "shorter"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), 503, os.strerror(errno.EACCES)),
    (OSError("no number"), 503, "no number"),
    (QueueFailed("The queue can't be written. Make room."), 503, "The queue can't be written. Make room."),
    (HostProblem("It hangs. Start it again."), 503, "It hangs. Start it again."),
)


@pytest.mark.parametrize(("error", "status", "words"), TROUBLE)
def test_trouble_of_this_machine_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch, config_of: ConfigOf, error: Exception, status: int, words: str
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(Queue, "add", fail)
    answer = client.post(f"{V1}/jobs", json={"config": config_of()})
    assert answer.status_code == status and words in answer.json()["detail"]


def test_a_host_that_has_no_folders_to_tell_of_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: FakeHost) -> list[Path]:
        raise HostProblem("Its folders are not known yet. Wait until it has started.")

    monkeypatch.setattr(FakeHost, "lora_folders", fail)
    answer = client.get(f"{V1}/loras")
    assert answer.status_code == 503 and "Wait" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"loss": math.nan, "all": [math.inf, (1.5, -math.inf)]}, {"loss": None, "all": [None, [1.5, None]]}),
        ({"name": "ずんだもん", "path": Path("a")}, {"name": "ずんだもん", "path": "a"}),
        ({"half": "a\ud800b"}, {"half": "a?b"}),
    ],
)
def test_an_answer_is_json_that_every_reader_takes(value: Any, expected: Any) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(Answer(value).body.decode("utf-8"), parse_constant=refuse) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a file's name be no text")
def test_files_whose_names_are_no_text_are_listed(client: Client, dataset: Path, host: FakeHost) -> None:
    for folder, ending in ((dataset / "10_zdm", b".png"), (host.home / "Lora", b".safetensors")):
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff" + ending)).write_bytes(png())
    for path in (f"{V1}/datasets/zdm", f"{V1}/loras", "/lora-trainer/aws/datasets/zdm"):
        assert client.get(path).status_code == 200

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from lora_trainer.jobs import controls
from lora_trainer.jobs.controls import COMMANDS, FileControl, clear, send
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.stops import Control, Wishes
from lora_trainer.locks import Lock, Taken


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, kind: str, /, **facts: Any) -> None:
        self.events.append((kind, facts))


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    path = tmp_path / "jobs" / "1"
    path.mkdir(parents=True)
    return JobFolder(path)


def test_nothing_is_wished_where_nothing_was_sent(folder: JobFolder) -> None:
    control: Control = FileControl(folder, silent)
    assert control.wishes() == control.wishes() == Wishes()


@pytest.mark.parametrize(
    ("command", "at_first", "later"),
    [
        ("pause", Wishes(paused=True), Wishes(paused=True)),
        ("stop", Wishes(stop=True), Wishes(stop=True)),
        ("stop_and_save", Wishes(stop=True, save=True), Wishes(stop=True)),
        ("save", Wishes(save=True), Wishes()),
        ("sample", Wishes(sample=True), Wishes()),
        ("resume", Wishes(), Wishes()),
    ],
)
def test_a_command_is_heeded_once(folder: JobFolder, command: str, at_first: Wishes, later: Wishes) -> None:
    told = Told()
    control = FileControl(folder, told)
    name = send(folder, command)
    assert control.wishes() == at_first
    assert control.wishes() == control.wishes() == later
    assert told.events == [("heeded", {"id": name, "command": command, "by": "user"})]


def test_every_command_is_known_and_no_other(folder: JobFolder) -> None:
    for command in COMMANDS:
        send(folder, command)
    with pytest.raises(ValueError, match="'explode' is no command"):
        send(folder, "explode")
    assert len(folder.control.read_text(encoding="utf-8").splitlines()) == len(COMMANDS)


SENT = st.lists(st.tuples(st.sampled_from(["pause", "resume"]), st.sampled_from(["user", "host"])), max_size=8)


@runs(deadline=None, max_examples=30)
@given(rounds=st.lists(SENT, max_size=4))
def test_a_job_is_paused_as_long_as_anyone_has_paused_it(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str]]]
) -> None:
    folder = JobFolder(tmp_path_factory.mktemp("jobs") / "1")
    folder.path.mkdir()
    told = Told()
    control = FileControl(folder, told, Clock())
    last = {"user": "resume", "host": "resume"}
    names = []
    for sent in rounds:
        for command, by in sent:
            names.append(send(folder, command, by))
            last[by] = command
        assert control.wishes().paused == ("pause" in last.values())
    assert [facts["id"] for _, facts in told.events] == names


def test_a_hosts_pause_ends_where_no_host_is_left(folder: JobFolder) -> None:
    clock = Clock()
    lock = Lock(folder.path.parent / "supervisor.lock").take()
    control = FileControl(folder, silent, clock)
    clock.now = 100
    send(folder, "pause", by="host")
    assert control.wishes().paused
    clock.now = 1000  # the host works for long
    assert control.wishes().paused
    lock.release()
    clock.now = 1009
    assert control.wishes().paused  # it may be starting again
    clock.now = 1011
    assert not control.wishes().paused
    with lock.take():
        assert not control.wishes().paused
        send(folder, "pause", by="host")
        clock.now = 2000
        assert control.wishes().paused


def test_a_users_pause_needs_no_host(folder: JobFolder) -> None:
    clock = Clock()
    control = FileControl(folder, silent, clock)
    send(folder, "pause")
    assert control.wishes().paused
    clock.now = 1e6
    assert control.wishes().paused


def test_a_worker_that_starts_later_finds_what_was_sent(folder: JobFolder) -> None:
    send(folder, "save")
    assert FileControl(folder, silent).wishes() == Wishes(save=True)
    send(folder, "stop")
    clear(folder)
    assert FileControl(folder, silent).wishes() == Wishes()


def test_clearing_needs_no_file(folder: JobFolder) -> None:
    clear(folder)
    assert not folder.control.exists()


@pytest.mark.parametrize(
    "damage", [b'{"id": "a", "comm', b"\0\0", b"[]\n", b'{"command": "explode"}\n', b"\n", b"\xff"]
)
def test_a_damaged_line_takes_no_other_along(folder: JobFolder, damage: bytes) -> None:
    """Such as a full disk leaves."""
    control = FileControl(folder, silent)
    send(folder, "save")
    with folder.control.open("ab") as file:
        file.write(damage)
    assert control.wishes() == Wishes(save=True)
    send(folder, "sample")
    assert control.wishes() == Wishes(sample=True)


def test_senders_write_one_after_the_other(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, two that append at once could write over each other."""
    monkeypatch.setattr(controls, "SEND_SECONDS", 0)
    with Lock(folder.path / "control.lock").take(), pytest.raises(Taken):
        send(folder, "save")
    assert not folder.control.exists()


def test_commands_sent_at_once_are_all_heeded(folder: JobFolder) -> None:
    names: list[str] = []
    threads = [
        threading.Thread(target=lambda: names.extend(send(folder, "sample") for _ in range(20))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = Told()
    FileControl(folder, told).wishes()
    assert sorted(facts["id"] for _, facts in told.events) == sorted(names)
    assert len(set(names)) == 100

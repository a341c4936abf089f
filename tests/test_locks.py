"""Locks, held by threads of this process and by processes that are killed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lora_trainer import packages
from lora_trainer.locks import Lock, Taken, is_taken

HOLD = """
import sys
from pathlib import Path
from lora_trainer.locks import Lock
lock = Lock(Path(sys.argv[1])).take()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which holds the lock until it is killed or its standard input ends."""
    command, pipe = [sys.executable, "-c", HOLD, str(path)], subprocess.PIPE
    with subprocess.Popen(command, env=packages.environment_for_child(), stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline().strip() == b"held"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


def test_one_holds_it_at_a_time(path: Path) -> None:
    first, second = Lock(path), Lock(path)
    with first:
        assert is_taken(path)
        with pytest.raises(Taken, match=r"some\.lock is held by another"):
            second.take()
    assert not is_taken(path)
    with second.take():
        assert is_taken(path)
        first.release()
        assert is_taken(path)
    assert not is_taken(path)


def test_asking_makes_no_file_and_holding_no_other(path: Path) -> None:
    assert not is_taken(path)
    assert not path.exists()
    with Lock(path):
        assert list(path.parent.iterdir()) == [path]


def test_a_killed_process_holds_nothing(path: Path) -> None:
    with holder(path) as process:
        assert is_taken(path)
        with pytest.raises(Taken):
            Lock(path).take()
        process.kill()
        process.wait()
        assert not is_taken(path)
        with Lock(path).take():
            assert is_taken(path)


def test_a_child_of_the_holder_does_not_hold_it(path: Path) -> None:
    with Lock(path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not is_taken(path)
    finally:
        child.communicate(b"\n")


def test_it_is_waited_for(path: Path) -> None:
    taken = threading.Event()

    def take() -> None:
        with Lock(path).take(wait=60):
            taken.set()

    with holder(path) as process:
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.is_set()
        process.communicate(b"")
        thread.join()
    assert taken.is_set()


def test_whoever_only_asks_keeps_nobody_out(path: Path) -> None:
    Lock(path).take().release()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            is_taken(path)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(100):
            Lock(path).take().release()
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_threads_take_turns(path: Path) -> None:
    counts, inside = [], []

    def work() -> None:
        for _ in range(5):
            with Lock(path).take(wait=60):
                inside.append(1)
                counts.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [1] * 20


def test_a_place_where_no_lock_can_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing.some\.lock cannot be locked"):
        Lock(tmp_path / "missing" / "some.lock").take()
    other = tmp_path / "a text"
    other.write_text("no database " * 100, encoding="utf-8")
    with pytest.raises(OSError, match="cannot be locked"):
        Lock(other).take()
    with pytest.raises(OSError, match="cannot be locked"):
        is_taken(other)
    assert other.read_text(encoding="utf-8").startswith("no database")

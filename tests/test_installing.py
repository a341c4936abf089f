"""The packages installed in the background, by a program in the place of the Python that trains."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_trainer.hosts.alone import NoHost
from lora_trainer.installing import Installation
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.locks import is_taken
from tests.jobs.conftest import queue
from tests.jobs.patience import until

__all__ = ["queue"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows starts no script by its first line")
ENDED = ("missing", "failed", "ready")
# Where the file `there` lies beside it, the packages are there; `setup` without --look makes it, once `go` is there.
PYTHON = """
import json, sys, time
from pathlib import Path
folder = Path(__file__).parent
words = sys.argv[sys.argv.index("setup"):]
with (folder / "calls").open("a") as calls:
    print(*words, file=calls)
def end(state, line):
    print(json.dumps({"state": state, "line": line}))
    sys.exit(state != "ready")
there = folder / "there"
if "--look" in words and not there.exists():
    end("missing", "They are not here.")
if not there.exists():
    print(json.dumps({"line": "Collecting tiny-trainer==1.0", "share": 0.25}), flush=True)
    print("WARNING: of pip", flush=True)
    while not (folder / "go").exists():
        time.sleep(0.01)
    there.touch()
end("ready", "They are here.")
"""


class Place:
    """A folder with the program, and the queue that waits for it."""

    def __init__(self, folder: Path, queue: Queue) -> None:
        self.folder, self.queue = folder, queue
        self.supervisor = Supervisor(queue, NoHost())
        self.python = self.program(PYTHON)
        self.installation = Installation(str(self.python), self.supervisor)

    def program(self, code: str) -> Path:
        path = self.folder / "python"
        path.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
        path.chmod(0o755)
        return path

    def ended(self) -> str:
        until(lambda: self.installation.state in ENDED)
        return self.installation.state

    def supervised(self) -> bool:
        return is_taken(self.queue.supervisor_lock)


@pytest.fixture
def place(tmp_path: Path, queue: Queue) -> Iterator[Place]:
    place = Place(tmp_path, queue)
    yield place
    place.supervisor.close()


def test_jobs_wait_until_somebody_has_the_packages_installed(place: Place) -> None:
    installation, supervisor = place.installation, place.supervisor
    assert installation.facts() == {"state": "looking", "line": "", "share": 0.0, "since": 0.0, "lines": []}
    installation.look()
    assert place.ended() == "missing" and installation.line == "They are not here."
    assert supervisor.watching.endswith("They are not here.") and not place.supervised()
    installation.start()
    until(lambda: "WARNING: of pip" in installation.facts()["lines"])
    facts = installation.facts()
    assert (facts["state"], facts["line"], facts["share"]) == ("installing", "Collecting tiny-trainer==1.0", 0.25)
    assert supervisor.watching == "Jobs wait until the training packages are installed: Collecting tiny-trainer==1.0"
    assert not place.supervised()
    (place.folder / "go").touch()
    assert place.ended() == "ready"
    until(place.supervised)
    assert supervisor.watching == "" and installation.facts()["share"] == 1.0


def test_packages_that_are_there_start_the_jobs_at_once(place: Place) -> None:
    (place.folder / "there").touch()
    place.installation.look()
    assert place.ended() == "ready"
    until(place.supervised)


def test_it_is_installed_once_however_often_that_is_asked(place: Place) -> None:
    for _ in range(3):
        place.installation.start()
    (place.folder / "go").touch()
    assert place.ended() == "ready"
    place.installation.start()
    place.installation.look()
    assert (place.folder / "calls").read_text(encoding="utf-8") == "setup --json\n"


def test_what_may_be_damaged_is_installed_again_and_jobs_go_on(place: Place) -> None:
    (place.folder / "there").touch()
    place.installation.start()
    until(place.supervised)
    before = place.installation.since
    (place.folder / "there").unlink()
    place.installation.start(again=True)
    until(lambda: place.installation.line.startswith("Collecting"))
    assert place.supervised() and place.supervisor.watching == ""
    (place.folder / "go").touch()
    assert place.ended() == "ready" and place.installation.since > before
    assert (place.folder / "calls").read_text(encoding="utf-8").splitlines()[-1] == "setup --json --again"
    assert place.supervised()


def test_what_went_wrong_is_told_and_can_be_tried_again(place: Place) -> None:
    told = '{"state": "failed", "line": "The disk is full. Make room."}'
    place.program(f"print({told!r})\nraise SystemExit(1)")
    place.installation.start()
    assert place.ended() == "failed" and place.installation.line == "The disk is full. Make room."
    assert place.supervisor.watching == "The disk is full. Make room." and not place.supervised()
    place.program(PYTHON)
    (place.folder / "go").touch()
    place.installation.start()
    until(place.supervised)
    assert place.installation.state == "ready"


def test_a_process_that_ends_without_a_word_has_failed(place: Place) -> None:
    place.program("print('[1, 2]')\nraise ValueError('of its own')")
    place.installation.start()
    assert place.ended() == "failed" and "ValueError: of its own" in place.installation.line
    assert "[1, 2]" in place.installation.facts()["lines"]


def test_a_python_that_is_not_there_is_named(place: Place) -> None:
    place.python.unlink()
    place.installation.look()
    assert place.ended() == "failed" and str(place.python) in place.installation.line

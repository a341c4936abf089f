from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from lora_trainer.jobs.event_log import EventWriter, end_of_events, follow, in_short, last_event, read_events
from lora_trainer.packages import ROOT

# Text as names of files can be: with lone surrogates too.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
FACTS = st.dictionaries(
    TEXT.filter(lambda name: name not in ("at", "event")),
    st.recursive(st.none() | st.booleans() | NUMBERS | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    max_size=4,
)


def write(path: Path, *events: dict[str, Any]) -> None:
    with EventWriter(path) as report:
        for facts in events:
            report("progress", **facts)


def facts_of(path: Path) -> list[dict[str, Any]]:
    return [event.facts for event in read_events(path, most=10_000)[0]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events") / "events.jsonl"


@runs(deadline=None)
@given(events=st.lists(FACTS, max_size=5))
def test_events_are_read_as_they_were_told(log: Path, events: list[dict[str, Any]]) -> None:
    log.unlink(missing_ok=True)
    before = time.time()
    write(log, *events)
    read, end = read_events(log)
    assert [event.facts for event in read] == events
    assert {event.kind for event in read} <= {"progress"}
    assert all(before <= event.at <= time.time() for event in read)
    assert end == end_of_events(log) == log.stat().st_size
    lines = log.read_text(encoding="utf-8").split("\n")  # as any other program reads it
    assert [json.loads(line) for line in lines[:-1]] == [event.as_dict() for event in read]
    assert lines[-1] == ""


def test_what_json_cannot_say_is_said_otherwise(log: Path) -> None:
    log.unlink(missing_ok=True)
    write(log, {"loss": math.nan, "rates": {"unet": (math.inf, 0.5)}, "path": Path("a") / "ü.png"})
    told = json.loads(log.read_bytes(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert told["loss"] is None and told["rates"] == {"unet": [None, 0.5]}
    assert told["path"] == str(Path("a") / "ü.png")


@runs(deadline=None)
@given(cut=st.integers(0, 10_000), left=st.binary(max_size=20))
def test_half_a_line_left_by_a_kill_is_cut_off(log: Path, cut: int, left: bytes) -> None:
    log.unlink(missing_ok=True)
    write(log, *({"step": step, "text": "ü" * step} for step in range(30)))
    whole = log.read_bytes()
    cut = min(cut, len(whole))
    kept = whole[:cut].count(b"\n")
    log.write_bytes(whole[:cut] + left.replace(b"\n", b" "))
    assert end_of_events(log) == whole[:cut].rfind(b"\n") + 1
    read, end = read_events(log)
    write(log, {"step": "next"})
    assert [event.facts["step"] for event in read] == list(range(kept))
    assert [event.facts["step"] for event in read_events(log, end)[0]] == ["next"]
    assert log.read_bytes().startswith(whole[:end])


def test_a_half_line_longer_than_a_look_is_cut_off(log: Path) -> None:
    log.unlink(missing_ok=True)
    write(log, {"step": 1})
    whole = log.read_bytes()
    log.write_bytes(whole + b"x" * 200_000)
    write(log)
    assert log.read_bytes() == whole
    log.write_bytes(b"x" * 200_000)
    write(log)
    assert log.read_bytes() == b""


@pytest.mark.parametrize(
    "damage", [b"\0" * 40, b"[1, 2]", b'"event"', b'{"event": "progress"}', b'{"at": 1}', b"\xff", b"", b"{", b"null"]
)
def test_a_damaged_line_is_passed_over(log: Path, damage: bytes) -> None:
    log.unlink(missing_ok=True)
    write(log, {"step": 1})
    with log.open("ab") as file:
        file.write(damage + b"\n")
    assert (last := last_event(log)) and last.facts == {"step": 1}
    write(log, {"step": 2})
    assert facts_of(log) == [{"step": 1}, {"step": 2}]


@runs(deadline=None)
@given(most=st.integers(1, 7), count=st.integers(0, 20))
def test_reading_in_parts_tells_each_event_once(log: Path, most: int, count: int) -> None:
    log.unlink(missing_ok=True)
    write(log, *({"step": step} for step in range(count)))
    steps, offset = [], 0
    while True:
        events, offset = read_events(log, offset, most)
        if not events:
            break
        assert len(events) <= most and offset == events[-1].next
        steps += [event.facts["step"] for event in events]
    assert steps == list(range(count))
    for event in read_events(log)[0]:
        assert [later.facts["step"] for later in read_events(log, event.next)[0]] == steps[event.facts["step"] + 1 :]


def test_a_line_that_is_being_written_waits_for_its_end(log: Path) -> None:
    log.unlink(missing_ok=True)
    write(log, {"step": 1}, {"step": 2})
    whole = log.read_bytes()
    for cut in range(len(whole)):
        log.write_bytes(whole[:cut])
        events, offset = read_events(log)
        log.write_bytes(whole)
        events += read_events(log, offset)[0]
        assert [event.facts["step"] for event in events] == [1, 2]


def test_no_file_has_no_events(tmp_path: Path) -> None:
    missing = tmp_path / "events.jsonl"
    assert read_events(missing, 7) == ([], 7)
    assert last_event(missing) is None
    assert end_of_events(missing) == 0
    missing.touch()
    assert read_events(missing, 2**80) == ([], 2**80)
    assert last_event(missing) is None
    assert not list(follow(missing, 0, lambda: True))


@pytest.mark.parametrize("size", [1, 65_400, 70_000, 2_000_000])
def test_the_last_event_is_found_from_the_end(log: Path, size: int) -> None:
    log.unlink(missing_ok=True)
    write(log, {"step": 1}, {"step": 2, "text": "x" * size})
    last = last_event(log)
    assert last and last.facts["step"] == 2 and last.next == log.stat().st_size
    with log.open("ab") as file:
        file.write(b'{"event": "progress", "at": 1, "st')
    assert last_event(log) == last


def test_followers_are_told_every_event_once_while_it_is_written(tmp_path: Path) -> None:
    path, count = tmp_path / "events.jsonl", 2000
    ended = threading.Event()
    told: list[list[int]] = [[] for _ in range(5)]

    def listen(steps: list[int]) -> None:
        steps += [event.facts["step"] for event in follow(path, 0, ended.is_set, poll=0.0005)]

    listeners = [threading.Thread(target=listen, args=(steps,)) for steps in told]
    for listener in listeners:
        listener.start()
    write(path, *({"step": step} for step in range(count)))
    ended.set()
    for listener in listeners:
        listener.join()
    assert told == [list(range(count))] * 5


def test_what_is_told_last_is_not_missed(log: Path) -> None:
    """The job ends between two looks of its follower."""
    log.unlink(missing_ok=True)

    def ended() -> bool:
        if not log.exists():
            write(log, {"step": 1})
        return True

    assert [event.facts["step"] for event in follow(log, 0, ended)] == [1]


def test_threads_that_report_do_not_mix_their_lines(log: Path) -> None:
    log.unlink(missing_ok=True)
    with EventWriter(log) as report:

        def tell(number: int) -> None:
            for step in range(200):
                report("progress", number=number, step=step)

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    told = facts_of(log)
    for number in range(4):
        assert [facts["step"] for facts in told if facts["number"] == number] == list(range(200))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of a file")
def test_a_full_disk_delays_events_and_loses_none(tmp_path: Path) -> None:
    """The system refuses what goes beyond 1000 bytes, in the middle of a line; later it takes it."""
    path = tmp_path / "events.jsonl"
    code = (
        "import resource, sys; from pathlib import Path; from lora_trainer.jobs.event_log import EventWriter\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "path = Path(sys.argv[1])\n"
        "with EventWriter(path) as report:\n"
        "    for step in range(50): report('progress', step=step)\n"
        "    report('stopped', step=50)\n"
        "    print(path.stat().st_size, len(report.waiting), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "    report('stopped', step=51)\n"
        "    print(path.stat().st_size, len(report.waiting))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        size, waiting = map(int, process.stdout.readline().split())
        assert size == 1000 and waiting > 1000
        assert not path.read_bytes().endswith(b"\n")
        before = facts_of(path)
        assert before == [{"step": step} for step in range(len(before))] and 5 < len(before) < 50
        process.stdin.write("\n")
        process.stdin.flush()
        size, waiting = map(int, process.stdout.readline().split())
    assert process.returncode == 0
    assert size > 1000 and waiting == 0
    assert facts_of(path) == [{"step": step} for step in range(52)]


@runs(deadline=None)
@given(offset=st.integers(0, 400))
def test_an_offset_inside_a_line_begins_with_the_next_one(log: Path, offset: int) -> None:
    log.unlink(missing_ok=True)
    write(log, *({"step": step} for step in range(5)))
    lines = log.read_bytes().splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    expected = [step for step, start in enumerate(starts) if start >= offset]
    assert [event.facts["step"] for event in read_events(log, offset)[0]] == expected


KINDS = st.sampled_from(["progress", "progress", "progress", "phase", "download", "sample", "started"])


@runs(deadline=None)
@given(kinds=st.lists(KINDS, max_size=60), points=st.integers(0, 12))
def test_in_short_nothing_is_missed_but_what_is_frequent(log: Path, kinds: list[str], points: int) -> None:
    log.unlink(missing_ok=True)
    with EventWriter(log) as report:
        for number, kind in enumerate(kinds):
            report(kind, number=number, path='"event": "progress"')
    short, end = in_short(log, points)
    assert end == end_of_events(log)
    told = {event.facts["number"]: event for event in short}
    whole = {event.facts["number"]: event for event in read_events(log)[0]}
    assert list(told) == sorted(told) and told.items() <= whole.items()
    last_of_runs = [place for place, kind in enumerate(kinds) if kind != "".join(kinds[place + 1 : place + 2])]
    rare = {place for place, kind in enumerate(kinds) if kind in ("sample", "started")}
    assert rare | set(last_of_runs) <= told.keys()
    frequent = [kinds[place] for place in told if place not in last_of_runs and place not in rare]
    assert set(frequent) <= {"progress"} and len(frequent) <= points
    if kinds.count("progress") <= points:
        assert sum(event.kind == "progress" for event in short) == kinds.count("progress")


def test_in_short_waits_for_half_a_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    assert in_short(log, 5) == ([], 0)
    write(log, {"step": 1})
    size = log.stat().st_size
    with log.open("ab") as file:
        file.write(b'{"at": 1.0, "event": "prog')
    events, offset = in_short(log, 5)
    assert ([event.facts for event in events], offset) == ([{"step": 1}], size)

"""What every store of jobs does: the one in SQLite and, to compare it with, one that is plain lists."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lora_trainer.jobs import store as store_module
from lora_trainer.jobs.estimates import Measurement
from lora_trainer.jobs.job import ACTIVE, RESUMABLE, STATUSES, Job, NoSuchJob
from lora_trainer.jobs.store import JobStore, NameTaken, SqliteStore
from tests.jobs import memory_store
from tests.jobs.memory_store import MemoryStore

MEASUREMENT = Measurement(
    5.0, "GPU", "base.safetensors", "sd15", 512 * 512, 16, "both", "bf16", True, "AdamW", 1.5, 9.0, 4e3
)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    store: JobStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def named(name: str, **values: Any) -> Job:
    return Job(name=name, output_folder="out", created_at=1.0, **values)


def names(jobs: list[Job]) -> str:
    return "".join(job.name for job in jobs)


def fill(store: JobStore, wanted: str) -> dict[str, int]:
    return {name: store.add(named(name)).id for name in wanted}


class TestStore:
    def test_jobs_are_numbered_and_kept_as_they_are(self, store: JobStore) -> None:
        given = named("zunda 🫛", base="base.safetensors", kind="prepare")
        added = store.add(given)
        assert added == store.job(added.id) == replace(given, id=1, position=added.position)
        assert store.add(named("b", id=7)).id == 7
        assert store.add(named("c", id=3)).id == 8

    def test_a_number_is_never_used_again(self, store: JobStore) -> None:
        ids = fill(store, "ab")
        assert store.delete(ids["b"], STATUSES)
        assert store.add(named("c")).id == 3
        with pytest.raises(NoSuchJob, match="There is no job 2"):
            store.job(ids["b"])

    @pytest.mark.parametrize("id", [0, -1, 99, 2**63, 10**30])
    def test_no_other_number_is_a_job(self, store: JobStore, id: int) -> None:
        fill(store, "a")
        with pytest.raises(NoSuchJob):
            store.job(id)

    def test_the_line_is_first_in_first_out_but_for_those_that_go_first(self, store: JobStore) -> None:
        fill(store, "abc")
        store.add(named("d"), first=True)
        assert names(store.line()) == "dabc"
        assert names(store.jobs()) == "dcba"

    def test_pages_of_the_newest(self, store: JobStore) -> None:
        ids = fill(store, "abcde")
        assert names(store.jobs(limit=2)) == "ed"
        assert names(store.jobs(limit=2, before=ids["d"])) == "cb"
        assert names(store.jobs(before=ids["a"])) == ""
        assert names(store.jobs(limit=0)) == ""
        store.change(ids["c"], ("queued",), status="stopped")
        assert names(store.jobs(("stopped", "failed"))) == "c"
        assert names(store.jobs(())) == ""
        assert names(store.jobs(before=2**70, limit=2**70)) == "edcba"

    def test_one_is_claimed_at_a_time(self, store: JobStore) -> None:
        assert store.claim(1.0) is None
        ids = fill(store, "ab")
        claimed = store.claim(2.0)
        assert claimed and claimed == store.job(ids["a"])
        assert (claimed.status, claimed.started_at, claimed.attempts) == ("running", 2.0, 1)
        assert store.claim(3.0) is None
        store.change(ids["a"], ACTIVE, status="paused")
        assert store.claim(3.0) is None
        assert names(store.line()) == "ab"
        store.change(ids["a"], ACTIVE, status="failed", cause="no", remedy="do", reason="nan", ended_at=4.0)
        claimed = store.claim(5.0)
        assert claimed and claimed.id == ids["b"]

    def test_a_job_is_changed_only_in_the_states_that_are_meant(self, store: JobStore) -> None:
        ids = fill(store, "a")
        assert not store.change(ids["a"], ACTIVE, status="finished")
        assert not store.change(99, STATUSES, step=1)
        assert store.change(ids["a"], ("queued",), step=3, steps=9, epoch=1, epochs=2, loss=0.25, pid=12, seen=400)
        assert store.change(ids["a"], STATUSES)
        assert not store.change(ids["a"], ACTIVE)
        job = store.job(ids["a"])
        assert (job.step, job.steps, job.epoch, job.epochs, job.loss, job.pid, job.seen) == (3, 9, 1, 2, 0.25, 12, 400)
        with pytest.raises(TypeError):
            store.change(ids["a"], STATUSES, colour="red")

    def test_an_ended_job_goes_next_again(self, store: JobStore) -> None:
        ids = fill(store, "abc")
        store.claim(1.0)
        store.change(ids["a"], ACTIVE, status="failed", cause="no", reason="nan", remedy="do", ended_at=2.0, pid=None)
        assert not store.requeue(ids["b"], RESUMABLE)
        assert store.requeue(ids["a"], RESUMABLE)
        assert names(store.line()) == "abc"
        assert store.job(ids["a"]).ended_at is None
        claimed = store.claim(3.0)
        assert claimed and (claimed.id, claimed.attempts, claimed.started_at) == (ids["a"], 2, 3.0)
        assert (claimed.reason, claimed.cause, claimed.remedy) == ("", "", "")

    @pytest.mark.parametrize(
        ("name", "where", "line"),
        [
            ("c", "up", "acb"), ("a", "up", "abc"), ("a", "down", "bac"), ("c", "down", "abc"),
            ("c", "first", "cab"), ("a", "first", "abc"), ("a", "last", "bca"), ("c", "last", "abc"),
        ],
    )  # fmt: skip
    def test_jobs_are_moved(self, store: JobStore, name: str, where: str, line: str) -> None:
        ids = fill(store, "abc")
        assert store.move(ids[name], where)
        assert names(store.line()) == line

    def test_only_what_is_queued_is_moved(self, store: JobStore) -> None:
        ids = fill(store, "ab")
        store.claim(1.0)
        assert not store.move(ids["a"], "last")
        assert not store.move(99, "last")

    def test_two_unfinished_trainings_have_no_name_in_common(self, store: JobStore) -> None:
        first = store.add(named("zdm"))
        with pytest.raises(NameTaken):
            store.add(named("ZDM"))
        assert store.add(named("zdm", kind="prepare")).name == "zdm"
        assert store.add(replace(named("zdm"), output_folder="elsewhere")).id
        store.change(first.id, ("queued",), status="failed")
        second = store.add(named("Zdm"))
        with pytest.raises(NameTaken):
            store.requeue(first.id, RESUMABLE)
        with pytest.raises(NameTaken):
            store.change(first.id, RESUMABLE, status="running")
        store.change(second.id, ("queued",), status="finished")
        assert store.requeue(first.id, RESUMABLE)

    def test_only_what_is_meant_is_deleted(self, store: JobStore) -> None:
        ids = fill(store, "ab")
        store.claim(1.0)
        assert not store.delete(ids["a"], ("queued", "failed"))
        assert store.delete(ids["b"], ("queued", "failed"))
        assert not store.delete(ids["b"], STATUSES)
        assert names(store.jobs()) == "a"

    def test_what_is_done_together_is_undone_together(self, store: JobStore) -> None:
        ids = fill(store, "ab")
        before = store.jobs()
        with pytest.raises(ZeroDivisionError), store.changing():
            store.add(named("c"))
            store.move(ids["b"], "first")
            store.delete(ids["a"], STATUSES)
            store.measure(MEASUREMENT)
            raise ZeroDivisionError
        assert (store.jobs(), names(store.line()), store.measurements()) == (before, "ab", [])
        with store.changing(), store.changing():
            store.add(named("d"))
        assert names(store.line()) == "abd"

    def test_measurements_are_kept_up_to_a_number(self, store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (store_module, memory_store):
            monkeypatch.setattr(module, "KEPT_MEASUREMENTS", 3)
        assert store.measurements() == []
        rows = [replace(MEASUREMENT, at=float(number), checkpointing=bool(number % 2)) for number in range(5)]
        for row in rows:
            store.measure(row)
        assert store.measurements() == rows[2:]


class Comparison(RuleBasedStateMachine):
    """Whatever is done to both stores, they stay alike."""

    ids = st.integers(0, 8)
    some = st.sets(st.sampled_from(STATUSES))

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._stores: tuple[JobStore, JobStore] = (SqliteStore(Path(self._folder.name, "jobs")), MemoryStore())
        self._clock = itertools.count(1.0)

    def both(self, act: Callable[[JobStore], Any]) -> None:
        results = []
        for store in self._stores:
            try:
                result = act(store)
            except NameTaken:
                result = "name taken"
            results.append(replace(result, position=0) if isinstance(result, Job) else result)
        assert results[0] == results[1]

    @rule(name=st.sampled_from("abcDd"), kind=st.sampled_from(["train", "prepare"]), first=st.booleans(), id=ids)
    def add(self, name: str, kind: str, first: bool, id: int) -> None:
        self.both(lambda store: store.add(named(name, kind=kind, id=id), first))

    @rule()
    def claim(self) -> None:
        at = next(self._clock)
        self.both(lambda store: store.claim(at))

    @rule(id=ids, when=some, status=st.sampled_from([name for name in STATUSES if name != "queued"]))
    def change(self, id: int, when: set[str], status: str) -> None:
        self.both(lambda store: store.change(id, when, status=status, cause=status))

    @rule(id=ids, when=some)
    def requeue(self, id: int, when: set[str]) -> None:
        self.both(lambda store: store.requeue(id, when))

    @rule(id=ids, where=st.sampled_from(["up", "down", "first", "last"]))
    def move(self, id: int, where: str) -> None:
        self.both(lambda store: store.move(id, where))

    @precondition(lambda self: len(self._stores[1].jobs()) > 3)
    @rule(id=ids, when=some)
    def delete(self, id: int, when: set[str]) -> None:
        self.both(lambda store: store.delete(id, when))

    @rule(id=ids, name=st.sampled_from("abcDd"))
    def give_up(self, id: int, name: str) -> None:
        def undone(store: JobStore) -> None:
            with contextlib.suppress(ZeroDivisionError), store.changing():
                store.claim(0.5)
                store.move(id, "last")
                store.delete(id, STATUSES)
                store.add(named(name))
                raise ZeroDivisionError

        self.both(undone)

    @invariant()
    def alike(self) -> None:
        def seen(store: JobStore) -> list[list[Job]]:
            return [[replace(job, position=0) for job in jobs] for jobs in (store.jobs(), store.line())]

        self.both(seen)

    def teardown(self) -> None:
        self._stores[0].close()
        self._folder.cleanup()


TestComparison = Comparison.TestCase
TestComparison.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

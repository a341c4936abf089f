"""A database that is damaged, full, old, or shared."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lora_trainer import packages
from lora_trainer.jobs import migrations
from lora_trainer.jobs import store as store_module
from lora_trainer.jobs.job import STATUSES, Job, NoSuchJob
from lora_trainer.jobs.store import QueueFailed, SqliteStore
from lora_trainer.locks import Lock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


def fill(path: Path, count: int = 40) -> list[Job]:
    """The jobs of a database with so many, as they were found and are found again."""
    store = SqliteStore(path)
    jobs = [store.add(Job(name=f"job {number}", output_folder="out" * 50, created_at=1.0)) for number in range(count)]
    store.close()
    return jobs


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = packages.environment_for_child()
    return subprocess.Popen(command, env=environment, encoding="utf-8", stdout=subprocess.PIPE)


def test_what_was_stored_is_there_again(path: Path) -> None:
    jobs = fill(path)
    store = SqliteStore(path, found=lambda: [Job(id=500)])
    assert store.jobs()[::-1] == jobs and not store.notice
    store.close()


@pytest.mark.parametrize("data", [b"no database at all " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_database_is_put_aside_and_built_anew(path: Path, data: bytes) -> None:
    jobs = fill(path)
    path.write_bytes(data)
    store = SqliteStore(path, found=lambda: jobs)
    assert store.jobs()[::-1] == jobs
    assert "jobs.sqlite was damaged" in store.notice and "jobs.sqlite.damaged-1" in store.notice
    assert path.with_name("jobs.sqlite.damaged-1").read_bytes() == data
    assert store.add(Job(name="next")).id == len(jobs) + 1
    store.close()


@pytest.mark.parametrize("seed", range(8))
def test_any_damage_is_mended_or_does_no_harm(path: Path, seed: int) -> None:
    jobs, rng = fill(path), random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(3):
        block = rng.randrange(len(data) // 4096) * 4096
        data[block : block + 4096] = rng.choice([bytes(4096), rng.randbytes(4096)])
    path.write_bytes(data[: len(data) - rng.choice([0, 4096, 5000])])
    store = SqliteStore(path, found=lambda: jobs)
    assert store.jobs()[::-1] == jobs == store.line()
    store.close()


def test_damage_that_cannot_be_put_aside_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    path.write_bytes(b"no database at all " * 500)
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(QueueFailed, match=r"jobs\.sqlite cannot be read and written: .*Permission denied"):
        SqliteStore(path)


def test_damage_found_later_is_told(path: Path) -> None:
    fill(path)
    store = SqliteStore(path)
    with pytest.raises(QueueFailed, match="is damaged. Start the program again"), store.changing():
        raise sqlite3.DatabaseError("database disk image is malformed")
    store.close()


def test_a_database_of_a_later_version_is_left_alone(path: Path) -> None:
    fill(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(QueueFailed, match=r"later version of this program\. Update"):
        SqliteStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", range(1, len(migrations.MIGRATIONS) + 1))
def test_an_older_database_is_brought_up(path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Made as each earlier version would have, and by one that is still to come."""
    later = (*migrations.MIGRATIONS, "CREATE TABLE coming (a TEXT); INSERT INTO coming VALUES ('here')")
    with monkeypatch.context() as earlier:
        earlier.setattr(migrations, "MIGRATIONS", later[:version])
        connection = sqlite3.connect(path)
        migrations.migrate(connection)
        connection.execute("INSERT INTO sqlite_sequence VALUES ('job', 41)")
        connection.commit()
        connection.close()
    monkeypatch.setattr(migrations, "MIGRATIONS", later)
    monkeypatch.setattr(store_module, "MIGRATIONS", later)
    store = SqliteStore(path, found=lambda: [Job(id=500)])
    assert store.jobs() == [] and store.measurements() == []
    assert store.add(Job(name="next")).id == 42
    store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT a FROM coming").fetchall() == [("here",)]
    assert migrations.version_of(connection) == len(later)
    connection.close()


def test_a_full_disk_is_told_and_changes_nothing(path: Path) -> None:
    jobs = fill(path)
    store = SqliteStore(path)
    store._connection.execute("PRAGMA max_page_count = 1")  # as small as it is: no page more
    with pytest.raises(QueueFailed, match="database or disk is full.*space on its disk"):
        store.add(Job(name="long " * 20_000))
    assert store.jobs()[::-1] == jobs
    assert store.change(jobs[0].id, STATUSES, step=1) and store.job(1).step == 1
    store.close()


@pytest.mark.parametrize("name", ["missing/jobs.sqlite", "."])
def test_a_place_without_a_database_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(QueueFailed, match="cannot be read and written"):
        SqliteStore(tmp_path / name)


CLAIM = """
import sys
from pathlib import Path
from lora_trainer.jobs.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
while store.line():
    if job := store.claim(1.0):
        print(job.id, flush=True)
        assert store.change(job.id, ("running",), status="finished")
"""


def test_processes_and_threads_claim_each_job_once(path: Path) -> None:
    jobs = fill(path, 60)
    processes = [run(CLAIM, path) for _ in range(2)]
    store, claimed = SqliteStore(path), []

    def work() -> None:
        while store.line():
            if job := store.claim(1.0):
                claimed.append(job.id)
                assert store.change(job.id, ("running",), status="finished")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        claimed += map(int, process.communicate()[0].split())
        assert process.returncode == 0
    assert sorted(claimed) == [job.id for job in jobs]
    assert all(job.attempts == 1 for job in store.jobs())
    store.close()


OPEN = """
import sys
from pathlib import Path
from lora_trainer.jobs.job import Job
from lora_trainer.jobs.store import SqliteStore
store = SqliteStore(Path(sys.argv[1]), found=lambda: [Job(id=1, name="found")])
print(store.add(Job(name=f"by {sys.argv[2]}")).id)
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_open_it_at_once_build_it_once(path: Path, damaged: bool) -> None:
    if damaged:
        path.write_bytes(b"no database at all " * 500)
    processes = [run(OPEN, path, number) for number in range(3)]
    assert sorted(int(process.communicate()[0]) for process in processes) == [2, 3, 4]
    assert len(list(path.parent.glob("*.damaged-*"))) == damaged


def test_only_one_opens_it_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or two would put aside the same damaged file, and the second the first one's new one."""
    monkeypatch.setattr(store_module, "_PATIENCE", 0)
    with Lock(path.with_name("jobs.sqlite.lock")), pytest.raises(QueueFailed, match="held by another"):
        SqliteStore(path)


def test_a_value_that_no_job_may_have_is_no_taken_name(path: Path) -> None:
    fill(path, 1)
    store = SqliteStore(path)
    with pytest.raises(sqlite3.IntegrityError):
        store.change(1, STATUSES, step=None)
    store.close()


def test_a_transaction_that_a_kill_cuts_off_leaves_nothing(path: Path) -> None:
    fill(path, 1)
    code = CLAIM.partition("while")[0] + (
        "with store.changing():\n"
        "    store.claim(1.0); store.delete(1, ('running',)); print('here', flush=True)\n"
        "    import time; time.sleep(600)\n"
    )
    process = run(code, path)
    assert process.stdout and process.stdout.readline() == "here\n"
    process.kill()
    process.communicate()
    store = SqliteStore(path)
    assert store.job(1).status == "queued"
    with pytest.raises(NoSuchJob):
        store.job(2)
    store.close()

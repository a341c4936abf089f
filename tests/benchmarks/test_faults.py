"""The benchmark of faults, a few of each: nothing is lost, damaged or repeated, and every count is there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from benchmarks.faults.__main__ import measure
from benchmarks.faults.disk import FIGURES, can_mount
from benchmarks.faults.jobs import SHORT

HOPED_FOR_NONE = (
    "lost_jobs", "half_files", "left_running", "unequal_weights", "wrong_state", "second_workers",
    "restarted_workers", "steps_while_lent", "missed", "repeated", "out_of_order", "events_lost", "500", "tracebacks",
    "accepted", "started",
)  # fmt: skip


def test_a_few_faults_do_no_harm(tmp_path: Path) -> None:
    figures = measure(tmp_path, SHORT)
    assert figures["worker_kills"] == SHORT.worker_kills and figures["host_kills"] == SHORT.host_kills
    assert figures["leases"] == SHORT.leases and figures["listed_jobs"] == SHORT.listed
    assert figures["clients"] == 5 and figures["clients_events"] > SHORT.repeats * 7 and figures["listed_ms"] > 0
    assert figures["bodies"] >= SHORT.bodies and figures["bodies_the_whole_one"] == 201
    if can_mount(tmp_path / "disk"):
        assert figures["disk_full_events_refused"] and figures["disk_full_saves_failed"]
        assert figures["disk_full_saves_told"] == figures["disk_full_saves_failed"]
    else:
        assert all(figures[name] is None for name in FIGURES)
    harm = {name: count for name, count in figures.items() if name.endswith(HOPED_FOR_NONE) and count}
    assert not harm and sum(name.endswith(HOPED_FOR_NONE) for name in figures) >= len(HOPED_FOR_NONE)

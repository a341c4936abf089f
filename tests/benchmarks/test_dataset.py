"""The benchmark of large sets, on a small one: every figure is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import dataset

ASKED_FOR = {"import_rss_growth_mb", "caption_op_s", "undo_s", "first_thumbnails_s", "tagging_ratio"}


def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.json"
    monkeypatch.setattr(
        "sys.argv", ["dataset", "--pictures", "3", "--work", str(tmp_path / "work"), "--json", str(out)]
    )
    dataset.main()
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["pictures"] == 3
    assert figures.keys() >= ASKED_FOR and all(figures[name] > 0 for name in ASKED_FOR - {"import_rss_growth_mb"})

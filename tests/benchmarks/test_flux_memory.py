"""The computed peak of memory against what the CPU's allocator really gave, for a small Flux."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.flux_memory import FULL, GIB, Ledger, Peak, cards, flux, step_peak, table, unwritten

SMALL = replace(FULL, hidden=256, mlp=1024, context=256, pooled=128, double_blocks=2, single_blocks=4)


def allocated(tmp_path: Path, work: Any) -> int:
    """The most bytes that `work` had taken of the CPU's allocator at any time, as torch's profiler heard of it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as heard:
        work()
    path = tmp_path / "trace.json"
    heard.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    steps = sorted((each for each in events if each["name"] == "[memory]"), key=lambda each: each["ts"])
    now = most = 0
    for each in steps:
        now += each["args"]["Bytes"]
        most = max(most, now)
    return most


@pytest.mark.parametrize("hold", ["", "fp8"])
@pytest.mark.parametrize("swap", [0, 1])
def test_what_is_computed_is_what_is_taken(hold: str, swap: int, tmp_path: Path) -> None:
    """Without swapping all lies on the CPU; with it the weights that wait do, too, and are taken off."""
    options: dict[str, Any] = {"config": SMALL, "text": 64, "dtype": torch.float32, "optimizer": "AdamW"}
    found = step_peak(hold, swap, 256, **options)
    taken = allocated(tmp_path, lambda: step_peak(hold, swap, 256, **options, device="cpu"))
    waits = step_peak(hold, 0, 256, **options).weights - found.weights
    assert taken / GIB - waits == pytest.approx(found.peak, rel=0.04)


def test_a_ledger_follows_what_is_alive() -> None:
    ledger = Ledger()
    with ledger:
        one = torch.empty(1000, device="meta")
        view = one[:10]
        two = one + 1
        assert ledger.now == 8000
        del one
        assert ledger.now == 8000  # the view keeps it
        del view
        assert ledger.now == 4000
        two.mul_(2)
        torch.empty(1000)  # of another device
        assert (ledger.now, ledger.peak) == (4000, 8000)
    del two
    assert ledger.now == 0


def test_weights_take_what_their_form_takes() -> None:
    sizes = {
        hold: sum(tensor.nbytes for tensor in unwritten((64, 128), hold, torch.bfloat16, "meta").tensors)
        for hold in ("", "fp8", "nf4")
    }
    assert sizes == {"": 2 * 64 * 128, "fp8": 64 * 128, "nf4": 64 * 128 // 2 + 4 * 128}
    model = flux(SMALL, "fp8", 35, "meta", torch.bfloat16)
    there = [name for name, weight in model.named_parameters() if weight.device.type != "meta"]
    assert there and all(".home.0" in name and "_blocks." in name for name in there)


def test_the_tables_say_what_fits() -> None:
    weights = {"": 22.0, "fp8": 11.0, "nf4": 6.0}
    peaks = [
        Peak(hold, swap, size, weight * (1 - swap / 40) + size / 512, weight * (1 - swap / 40))
        for hold, weight in weights.items()
        for swap in (0, 7, 14, 21, 28, 35)
        for size in (512, 1024)
    ]
    assert "| bf16 | 0 | 22.0 | 23.0 | 24.0 |" in table(peaks)
    assert "| 12 GB | 28 (7.6) |" in cards(peaks) and cards(peaks).count("| 0 (7.0) |") == 3

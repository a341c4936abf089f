"""What TensorBoard finds: read by its documented file format, not by what wrote it."""

from __future__ import annotations

import errno
import io
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from lora_trainer.worker.logs import Board, print_line, told_to


def records(file: Path) -> Iterator[Any]:
    """TFRecord: length (8 bytes, little endian), its checksum (4), the event, its checksum (4)."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def all_events(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        yield from records(file)


def curve(folder: Path, tag: str) -> dict[int, float]:
    """A curve's values by their steps, as TensorBoard shows it: a new start drops the steps from its own on."""
    found: dict[int, float] = {}
    for event in all_events(folder):
        if event.session_log.status == SessionLog.START:
            found = {step: value for step, value in found.items() if step < event.step}
        found.update((event.step, value.simple_value) for value in event.summary.value if value.tag == tag)
    return found


def progress(step: int, loss: float = 0.5) -> dict[str, Any]:
    return {"step": step, "loss": loss, "average": 0.25, "rates": [1e-4, 2e-4], "epoch": 1}


def test_curves_and_pictures_of_a_run_that_went_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    folder = tmp_path / "board"
    with Board(folder) as first:
        first("started", step=0)
        for step in (1, 2, 3):
            first("progress", **progress(step))
    monkeypatch.setattr(os, "getpid", lambda: 7)  # another process
    with Board(folder) as second:
        second("started", step=2)
        second("progress", **progress(3, loss=0.75))
        second("sample", path=str(tmp_path / "a.png"), step=3, number=0)
    assert curve(folder, "loss") == {1: 0.5, 2: 0.5, 3: 0.75}
    assert curve(folder, "rate/1") == pytest.approx({1: 2e-4, 2: 2e-4, 3: 2e-4})
    (image,) = [value.image for event in all_events(folder) for value in event.summary.value if value.HasField("image")]
    assert (image.width, image.height, image.encoded_image_string) == (16, 8, (tmp_path / "a.png").read_bytes())


class Full(io.StringIO):
    """A log on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_refuses_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "board").write_bytes(b"no folder")
    told: list[str] = []
    report = told_to(Board(tmp_path / "board"), print_line, lambda kind, /, **facts: told.append(kind))
    monkeypatch.setattr(sys, "stdout", Full())
    report("started", step=0)
    report("progress", **progress(1))
    assert told == ["started", "progress"]

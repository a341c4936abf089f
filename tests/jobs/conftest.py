"""A queue in an empty folder, and work that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.config import Config, Subset
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Prepare, Work

WorkOf = Callable[..., Work]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "jobs")
    yield queue
    queue.close()


@pytest.fixture
def work_of(tmp_path: Path) -> WorkOf:
    """Work on a picture and a base model that are there, its config changed as said."""
    base, folder = tmp_path / "base.safetensors", tmp_path / "10_zdm"
    base.write_bytes(b"weights")
    folder.mkdir()
    Image.new("RGB", (64, 64), "green").save(folder / "a.png")
    config = Config(
        base_model=str(base),
        subsets=(Subset(folder=str(folder)),),
        resolution=(64, 64),
        buckets=False,
        output_name="zdm",
        output_folder=str(tmp_path / "Lora"),
    )

    def make(prepare: Prepare | None = None, train: bool = True, **changes: Any) -> Work:
        return Work(replace(config, **changes), prepare, train)

    return make

"""A grid as a job: drawn by a worker, and told as every job is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.jobs.work import Work
from lora_trainer.training.loop import train
from lora_trainer.worker.run import work
from tests.worker.conftest import Job

ConfigOf = Callable[..., Config]


def test_a_worker_draws_a_grid(config_of: ConfigOf, tmp_path: Path) -> None:
    config = config_of(max_steps=1, preview_size=(64, 64), preview_steps=1, preview_prompts=("blob",))
    lora = train(config).lora
    folder = JobFolder(tmp_path / "jobs" / "1")
    drawing = replace(config, start_lora=str(lora), output_name="", subsets=())
    folder.write(Work(drawing, train=False, weights=(0.7, 1.0)), 1763650000.0)
    job = Job(folder, drawing)
    assert job.done() == 0, job.output
    kinds = job.kinds("started", "sample", "finished", "failed")
    assert kinds == ["started", "sample", "sample", "sample", "sample", "finished"]
    sheet = folder.samples / "grid.png"
    assert Path(job.last("finished")["picture"]) == sheet and sheet.is_file()
    assert not folder.models.exists() and not folder.run.exists()


def test_a_lora_that_is_gone_is_a_failure_that_is_told(config_of: ConfigOf, tmp_path: Path, here: None) -> None:
    folder = JobFolder(tmp_path / "jobs" / "1")
    drawing = config_of(start_lora=str(tmp_path / "gone.safetensors"), preview_prompts=("blob",))
    folder.write(Work(drawing, train=False, weights=(1.0,)), 1763650000.0)
    with pytest.raises(BadInput):
        work(folder.path)
    job = Job(folder, drawing)
    assert "gone.safetensors" in job.last("failed")["cause"] and job.last("failed")["remedy"]

"""What a run cost in time and memory, as the basis of estimates for later ones on the same machine."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from lora_trainer.jobs.estimates import spared
from lora_trainer.jobs.events import Report
from lora_trainer.training.device import Precision, peak_memory
from lora_trainer.training.learning import optimizer_of
from lora_trainer.training.models import checkpointing
from lora_trainer.training.plan import filled
from lora_trainer.training.run import Run

ENOUGH = 20  # steps, after which their median changes little


class Meter:
    """Told of every step; reports "measured" once there are enough of them, and at the end of the run."""

    def __init__(self, run: Run, precision: Precision, device: torch.device, started: float, report: Report):
        self._run, self._precision, self._device, self._report = run, precision, device, report
        self._plan = run.plan
        self._start_seconds = time.monotonic() - started
        self._seconds: list[float] = []

    def after_step(self, seconds: float, last: bool) -> None:
        if self._run.plan is not self._plan:  # a saving has changed what a step costs
            self._plan, self._seconds = self._run.plan, []
        self._seconds.append(seconds)
        if last or len(self._seconds) == ENOUGH:
            self._report("measured", **self._facts())

    def _facts(self) -> dict[str, Any]:
        plan, config, peaks = self._plan, self._plan.config, peak_memory(self._device)
        width, height = filled(config.resolution)
        return {
            "device": device_name(self._device),
            "base": plan.base.path.name,
            "family": plan.base.family,
            "pixels": width * height * config.batch_size,
            "rank": config.rank,
            "train": config.train,
            "precision": self._precision.name,
            "checkpointing": checkpointing(config, self._device),
            "optimizer": optimizer_of(config, self._device),
            "accumulation": config.gradient_accumulation,
            "spared": spared(config),
            "seconds_per_step": statistics.median(self._seconds[1:] or self._seconds),  # the first one warms up
            "start_seconds": self._start_seconds,
            "peak_mb": peaks.get("peak_gpu_mb", peaks["peak_rss_mb"]),
        }


def device_name(device: torch.device) -> str:
    """Such as "NVIDIA GeForce RTX 4090", else the device's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()

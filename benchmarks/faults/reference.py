"""The same training, which nothing befell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.faults.jobs import Size, environment, job_config
from benchmarks.faults.remains import all_events
from lora_trainer.config import dump_toml
from lora_trainer.files import write_text
from lora_trainer.jobs.folder import JobFolder


@dataclass(frozen=True)
class Reference:
    """Its LoRA, the loss of each step, and the seconds from its start to its first step."""

    lora: Path
    losses: list[float]
    start_seconds: float

    def unequal(self, lora: Path, folder: JobFolder) -> int:
        """1 unless every tensor of a job's LoRA is bit for bit the same; where it is not is then told."""
        ours, theirs = load_file(self.lora), load_file(lora)
        if ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours):
            return 0
        told = (event.facts for event in all_events(folder) if event.kind == "progress")
        steps = [facts["step"] for facts in told if facts["loss"] != self.losses[facts["step"] - 1]]
        print(
            f"{lora} is another one; the losses of steps {steps[:3]} ... differ, {len(steps)} in all", file=sys.stderr
        )
        return 1


def train_unbroken(work: Path, size: Size) -> dict[str, Any]:
    """With the command `train`, without a queue."""
    folder = work / "reference"
    write_text(folder / "config.toml", dump_toml(job_config(size, folder, "unbroken")))
    command = [sys.executable, "-m", "lora_trainer", "train", str(folder / "config.toml"), "--json"]
    began, start_seconds, losses = time.monotonic(), 0.0, []
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), encoding="utf-8") as child:
        for line in child.stdout or ():
            told = json.loads(line)
            if told["event"] == "progress":
                start_seconds = start_seconds or time.monotonic() - began
                losses.append(told["loss"])
    write_text(folder / "told.json", json.dumps({"losses": losses, "start_seconds": start_seconds}))
    return {"unbroken_start_seconds": start_seconds}


def unbroken(work: Path) -> Reference:
    """What `train_unbroken` left."""
    folder = work / "reference"
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return Reference(folder / "unbroken.safetensors", told["losses"], told["start_seconds"])

"""Runs a training script of sd-scripts, unchanged, and writes down what it does; run by sd-scripts' own Python.

    python peer_driver.py ORDERS.json

`peer.py` writes the orders: `folder` of sd-scripts, `script`, its `arguments`, the file to `record` in, and for
`parity.py` the `draws`. The record has one JSON object a line: "begin", "step" for each optimizer step, "finished".
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

TRAINERS = {
    "train_network": "NetworkTrainer",
    "sdxl_train_network": "SdxlNetworkTrainer",
    "flux_train_network": "FluxNetworkTrainer",
}


def main() -> None:
    orders = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.chdir(orders["folder"])
    sys.path[0] = orders["folder"]  # instead of this file's folder
    stand_in_for_torchvision()
    script = importlib.import_module(orders["script"])
    record = Record(Path(orders["record"]))
    watch(record)
    if orders["draws"]:
        sys.path.append(str(Path(__file__).resolve().parents[1]))
        importlib.import_module("benchmarks.peer_draws").inject(orders["draws"])

    train_util: Any = importlib.import_module("library.train_util")
    parser = script.setup_parser()
    sys.argv = [orders["script"], *orders["arguments"]]
    arguments = parser.parse_args()
    train_util.verify_command_line_training_args(arguments)
    arguments = train_util.read_config_from_file(arguments, parser)
    getattr(script, TRAINERS[orders["script"]])().train(arguments)
    lora = Path(arguments.output_dir) / train_util.get_last_ckpt_name(arguments, ".safetensors")
    record.write(event="finished", lora=str(lora.resolve()), **peak_memory())


class Record:
    """Seconds, of the clock and of the CPU, and mean loss of each optimizer step.

    The time between two of them is the later one's.
    """

    def __init__(self, path: Path):
        self._path = path
        self._losses: list[Any] = []
        self._last = self._last_cpu = 0.0

    def write(self, **event: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def begin(self) -> None:
        self._last, self._last_cpu = time.monotonic(), time.process_time()
        self.write(event="begin", at=self._last)

    def batch(self, loss: Any) -> None:
        self._losses.append(loss.detach())

    def step(self) -> None:
        loss = sum(found.item() for found in self._losses) / len(self._losses)
        now, cpu = time.monotonic(), time.process_time()
        self.write(event="step", seconds=now - self._last, cpu=cpu - self._last_cpu, loss=loss)
        self._losses, self._last, self._last_cpu = [], now, cpu


def watch(record: Record) -> None:
    """Listens at the loss of each batch, and at the progress bar, which is made before the first step and moves on
    after each."""
    train_network: Any = importlib.import_module("train_network")
    tqdm: Any = train_network.tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **options)
            self._steps = options.get("desc") == "steps"
            if self._steps:
                record.begin()

        def update(self, count: float = 1) -> bool | None:
            if self._steps:
                record.step()
            return super().update(count)

    process_batch = train_network.NetworkTrainer.process_batch

    def heard(*args: Any, **options: Any) -> Any:
        loss = process_batch(*args, **options)
        record.batch(loss)
        return loss

    train_network.tqdm = Bar
    train_network.NetworkTrainer.process_batch = heard


def peak_memory() -> dict[str, float]:
    """MiB: of this process, and of the GPU where it used one."""
    import torch

    found = {"peak_rss_mb": peak_rss()}
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def peak_rss() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage counts the parent's memory too, from between its fork and this process's start
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 1024
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS, in bytes


def stand_in_for_torchvision() -> None:
    """sd-scripts imports torchvision for three transforms only; where it is missing or broken, these three here do."""
    try:
        importlib.import_module("torchvision.transforms")
        return
    except (ImportError, RuntimeError, OSError, AttributeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    import numpy as np
    import torch

    def compose(steps: list[Any]) -> Any:
        def run(picture: Any) -> Any:
            for step in steps:
                picture = step(picture)
            return picture

        return run

    transforms = types.SimpleNamespace(
        Compose=compose,
        ToTensor=lambda: lambda pixels: torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255,
        Normalize=lambda mean, std: lambda tensor: (tensor - mean[0]) / std[0],
    )
    for name, contents in (("torchvision", {"transforms": transforms}), ("torchvision.transforms", vars(transforms))):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(contents)
        sys.modules[name] = module


if __name__ == "__main__":
    main()

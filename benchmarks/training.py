"""Seconds per step, time to the first step and peak memory of real runs, each in a process of its own.

    python tests/make_base.py sd15 base.safetensors
    python -m benchmarks.training --base base.safetensors --pictures FOLDER --precision bf16 no --json out.json

Rank 16, 512 px without buckets, batch 1, U-Net only, latents and captions cached, no previews.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lora_trainer.config import Config, Subset, dump_toml
from lora_trainer.packages import environment_for_child


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--precision", nargs="+", default=["bf16"], choices=["no", "fp16", "bf16"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = {}
    for precision in arguments.precision:
        with tempfile.TemporaryDirectory() as folder:
            config = config_for(arguments, precision, Path(folder))
            results[f"{arguments.base.stem}-{arguments.size}-{precision}"] = measure(config, arguments.threads)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text, encoding="utf-8")


def config_for(arguments: argparse.Namespace, precision: str, folder: Path) -> Config:
    return Config(
        base_model=str(arguments.base),
        subsets=(Subset(folder=str(arguments.pictures)),),
        resolution=(arguments.size, arguments.size),
        buckets=False,
        max_steps=arguments.steps,
        batch_size=1,
        rank=16,
        train="unet",
        shuffle_tags=False,
        optimizer="AdamW",
        mixed_precision=precision,
        seed=42,
        save_state="off",
        output_name="benchmark",
        output_folder=str(folder),
        preview_every_epochs=0,
        preview_at_start=False,
    )


def measure(config: Config, threads: int) -> dict[str, Any]:
    """One run: `step_s` is the median without the first step, `start_s` from the command to the first step's begin."""
    path = Path(config.output_folder) / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    began = time.monotonic()
    command = [sys.executable, "-m", "lora_trainer", "train", str(path), "--json"]
    environment = {**environment_for_child(), "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="utf-8") as process:
        seconds: list[float] = []
        start, finished = 0.0, {}
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "progress":
                seconds.append(event["seconds"])
                start = start or time.monotonic() - began - event["seconds"]
            elif event["event"] == "finished":
                finished = event
    if process.returncode:
        raise SystemExit(f"the run ended with code {process.returncode}")
    return {
        "step_s": round(statistics.median(seconds[1:]), 3),
        "start_s": round(start, 1),
        "job_s": round(time.monotonic() - began, 1),
        "peak_rss_mb": round(finished["peak_rss_mb"]),
        "peak_gpu_mb": round(finished.get("peak_gpu_mb", 0)),
        "steps": len(seconds),
        "threads": threads,
    }


if __name__ == "__main__":
    main()

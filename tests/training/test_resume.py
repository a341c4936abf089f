"""Runs that are killed, and runs on several processes, end with the weights of one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from lora_trainer.config import Config, dump_toml
from lora_trainer.packages import environment_for_child

ConfigOf = Callable[..., Config]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # sums of two threads may be rounded otherwise than those of one


def write_config(config: Config, path: Path) -> Path:
    path.write_text(dump_toml(config), encoding="utf-8")
    return path


def run_until(config: Path, last_step: int | None) -> list[int]:
    """Trains in a process of its own and kills it as soon as it tells of `last_step`; returns the steps it told of."""
    steps = []
    command = [sys.executable, "-m", "lora_trainer", "train", str(config), "--json"]
    environment = {**environment_for_child(), **ONE_THREAD}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="utf-8") as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "progress":
                steps.append(event["step"])
                if event["step"] == last_step:
                    process.kill()
                    break
    return steps


def test_killed_twice_a_run_ends_with_the_same_bits(config_of: ConfigOf, tmp_path: Path) -> None:
    """Once before there is any state to go on from, once at a step after a save."""
    options = {"epochs": 4, "seed": -1, "dropout": 0.1, "optimizer": "AdamW"}
    config = write_config(config_of(**options), tmp_path / "config.toml")
    assert run_until(config, 1) == [1]
    run_until(config, 5)
    resumed = run_until(config, None)
    assert resumed[0] == 5 and resumed[-1] == 8  # two steps an epoch: the state is that of step 4
    record = json.loads((tmp_path / "out" / "blob-run" / "run.json").read_text(encoding="utf-8"))
    whole = config_of(**{**options, "output_name": "whole", "seed": record["seed"]})
    run_until(write_config(whole, tmp_path / "whole.toml"), None)
    for name in ("", "-000001", "-000002", "-000003"):
        killed = load_file(tmp_path / "out" / f"blob{name}.safetensors")
        unbroken = load_file(tmp_path / "out" / f"whole{name}.safetensors")
        assert all(torch.equal(killed[key], unbroken[key]) for key in unbroken), name


def test_two_processes_give_the_result_of_one(config_of: ConfigOf, tmp_path: Path) -> None:
    """Two processes of one batch a step are one process that gathers two batches into each step."""
    options = {"batch_size": 1, "epochs": 2, "dropout": 0.1}
    one = config_of(output_name="one", gradient_accumulation=2, **options)
    run_until(write_config(one, tmp_path / "one.toml"), None)
    config = write_config(config_of(output_name="two", **options), tmp_path / "config.toml")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29517"]
    environment = {**environment_for_child(), **ONE_THREAD, "ACCELERATE_USE_CPU": "true", "USE_LIBUV": "0"}
    done = subprocess.run(
        [*launch, "-m", "lora_trainer", "train", str(config), "--json"],
        env={**os.environ, **environment}, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [event["step"] for event in events if event["event"] == "progress"] == [1, 2, 3, 4]
    alone, together = (load_file(tmp_path / "out" / f"{name}.safetensors") for name in ("one", "two"))
    for key in alone:
        torch.testing.assert_close(together[key], alone[key], atol=1e-5, rtol=1e-4)

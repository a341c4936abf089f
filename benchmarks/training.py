"""Seconds per step, time to the first step, peak memory and the whole job: ours and sd-scripts', in turn.

    python -m benchmarks.training --sd-scripts FOLDER --json speed.json --table speed.md
    python -m benchmarks.training --sd-scripts FOLDER --cases sd15-512 --steps 100 --rounds 1

Rank 16, AdamW, U-Net only, latents and captions cached, no previews; random bases of full size, made where `--bases`
has none yet. On a CPU the cases are of batch 1, on CUDA of batch 1 and 4. Without --sd-scripts only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.flops import product_speed, step_flops
from benchmarks.parity_run import peer_arguments
from benchmarks.peer import PeerRun, find_python, run_peer
from benchmarks.sample_pictures import make_pictures
from lora_trainer.config import Config, Subset, dump_toml
from lora_trainer.packages import environment_for_child
from lora_trainer.training.plan import make_plan
from tests.make_base import make_base


@dataclass(frozen=True)
class Case:
    """`size`: pixels of a side. `precision`: as the setting mixed_precision has it."""

    family: str
    size: int
    batch: int = 1
    precision: str = "bf16"


CPU_CASES = {
    "sd15-512": Case("sd15", 512),
    "sdxl-512": Case("sdxl", 512),
    "sd15-512-fp32": Case("sd15", 512, precision="no"),
}
CUDA_CASES = {
    "sd15-512": Case("sd15", 512),
    "sd15-512-batch4": Case("sd15", 512, 4),
    "sdxl-1024": Case("sdxl", 1024),
    "sdxl-1024-batch4": Case("sdxl", 1024, 4),
}
USUAL = ("sd15-512", "sdxl-512")  # of the CPU's; the others when they are named
RATIOS = {"step": "step_s", "start": "start_s", "peak": "peak_mb", "job": "job_s", "gpu_peak": "gpu_mb"}


@dataclass(frozen=True)
class Run:
    """`step_s`: the median of all steps but the first. `start_s`: from the command to the end of the first step, less
    `step_s`, so that what comes before training counts wherever it is done. `job_s`: to the process's end, the LoRA
    saved. `peak_mb`, `gpu_mb`: MiB of the process and of the GPU.
    """

    step_s: float
    start_s: float
    job_s: float
    peak_mb: float
    gpu_mb: float | None


def main() -> None:
    arguments = parsed()
    cases = CUDA_CASES if torch.cuda.is_available() else CPU_CASES
    chosen = arguments.cases or [name for name in cases if cases is CUDA_CASES or name in USUAL]
    with tempfile.TemporaryDirectory() as folder:
        results = {name: measure(cases[name], arguments, Path(folder)) for name in chosen}
    print(json.dumps(results, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if arguments.table:
        arguments.table.write_text(table(results), encoding="utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sd-scripts", type=Path, metavar="FOLDER", help="a checkout of sd-scripts")
    parser.add_argument("--python", type=Path, help="sd-scripts' Python (see benchmarks/README.md)")
    parser.add_argument("--cases", nargs="+", choices=CUDA_CASES if torch.cuda.is_available() else CPU_CASES)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, in turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bases", type=Path, metavar="FOLDER", help="keeps sd15.safetensors and sdxl.safetensors")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="by default five that are drawn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    return parser.parse_args()


def measure(case: Case, arguments: argparse.Namespace, workspace: Path) -> dict[str, Any]:
    """The medians of all rounds, and ours over theirs."""
    base = (arguments.bases or workspace) / f"{case.family}.safetensors"
    if not base.exists():
        make_base(case.family, base)
    pictures = arguments.pictures or make_pictures(workspace, "large")
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=workspace) as folder:
            config = config_of(case, base, pictures, arguments.steps, Path(folder))
            ours.append(run_ours(config, arguments.threads))
            if arguments.sd_scripts:
                theirs.append(run_theirs(config, arguments, Path(folder)))
    found: dict[str, Any] = {"ours": asdict(median(ours))}
    if theirs:
        found["sd_scripts"] = asdict(median(theirs))
        found = ratios(found["ours"], found["sd_scripts"]) | found
    found |= share_of_peak(case, base, found, arguments.threads)
    return found | {"steps": arguments.steps, **machine(arguments)}


def config_of(case: Case, base: Path, pictures: Path, steps: int, folder: Path) -> Config:
    return Config(
        base_model=str(base),
        subsets=(Subset(folder=str(pictures)),),
        repeats=max(1, steps * case.batch // 2),
        resolution=(case.size, case.size),
        buckets=False,
        max_steps=steps,
        batch_size=case.batch,
        rank=16,
        alpha=8.0,
        train="unet",
        schedule="cosine",
        shuffle_tags=False,
        optimizer="AdamW",
        mixed_precision=case.precision,
        seed=42,
        save_state="off",
        output_name="benchmark",
        output_folder=str(folder / "ours"),
        preview_every_epochs=0,
        preview_at_start=False,
    )


def run_ours(config: Config, threads: int) -> Run:
    path = Path(config.output_folder).parent / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    command = [sys.executable, "-m", "lora_trainer", "train", str(path), "--json", "--fresh"]
    environment = {**environment_for_child(), "OMP_NUM_THREADS": str(threads)}
    seconds: list[float] = []
    first_end, finished = 0.0, {}
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, encoding="utf-8") as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "progress":
                seconds.append(event["seconds"])
                first_end = first_end or time.monotonic() - began
            elif event["event"] == "finished":
                finished = event
    if process.returncode:
        raise SystemExit(f"our run ended with code {process.returncode}")
    job = time.monotonic() - began
    step = statistics.median(seconds[1:])
    return Run(step, first_end - step, job, finished["peak_rss_mb"], finished.get("peak_gpu_mb"))


def run_theirs(config: Config, arguments: argparse.Namespace, folder: Path) -> Run:
    python = find_python(arguments.sd_scripts, arguments.python)
    script, given = peer_arguments(make_plan(config), folder)
    run: PeerRun = run_peer(python, arguments.sd_scripts, script, given, folder, threads=arguments.threads)
    seconds = [step for step, _ in run.steps]
    step = statistics.median(seconds[1:])
    return Run(step, run.start_s + seconds[0] - step, run.job_s, run.peak_rss_mb, run.peak_gpu_mb)


def median(runs: Sequence[Run]) -> Run:
    """Of each figure by itself."""
    figures: dict[str, Any] = {}
    for name in asdict(runs[0]):
        column = [getattr(run, name) for run in runs]
        figures[name] = None if None in column else round(statistics.median(column), 3)
    return Run(**figures)


def ratios(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    return {name: round(ours[key] / theirs[key], 3) for name, key in RATIOS.items() if ours[key] and theirs[key]}


def share_of_peak(case: Case, base: Path, found: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """How much of the speed of a large matrix product a step reaches; its work is counted, see `step_flops`."""
    torch.set_num_threads(threads)
    speed, work = product_speed(case.precision), step_flops(base, case.size, case.batch)
    shares = {who: round(work / found[who]["step_s"] / speed, 3) for who in ("ours", "sd_scripts") if who in found}
    return {"share_of_product_peak": shares, "product_gflops": round(speed / 1e9), "step_gflop": round(work / 1e9)}


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {"machine": name, "threads": arguments.threads, "torch": torch.__version__, "date": str(date.today())}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a row for each case and trainer, and one of their ratios."""
    rows = ["| case | | s/step | start, s | job, s | peak, MiB | GPU, MiB | of the product peak |", "|---" * 8 + "|"]
    for name, found in results.items():
        for who in ("ours", "sd_scripts"):
            if who in found:
                run, share = found[who], found["share_of_product_peak"][who]
                gpu = "" if run["gpu_mb"] is None else f"{run['gpu_mb']:,.0f}"
                figures = f"{run['step_s']:.2f} | {run['start_s']:.1f} | {run['job_s']:.0f} | {run['peak_mb']:,.0f}"
                rows.append(f"| {name}, {found['steps']} steps | {who} | {figures} | {gpu} | {share:.0%} |")
        if "step" in found:
            shown = [found.get(key) for key in ("step", "start", "job", "peak", "gpu_peak")]
            rows.append(f"| | ratio | {' | '.join('' if ratio is None else f'{ratio:.2f}' for ratio in shown)} | |")
    last = next(iter(results.values()))
    rows += ["", f"{last['machine']}, {last['threads']} threads, torch {last['torch']}, {last['date']}"]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()

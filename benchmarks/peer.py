"""sd-scripts beside us: finds a Python that can run it, and runs one of its trainings in a process of its own.

Nothing in its folder is changed and no internet is needed, but for the first installation of its packages where no
environment with them is found.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYTHON_VARIABLE = "SD_SCRIPTS_PYTHON"
DRIVER = Path(__file__).with_name("peer_driver.py")
ENVIRONMENTS = Path(__file__).with_name(".venv")  # a name that git, ruff and mypy leave alone
PROGRAMS = ("bin/python", "Scripts/python.exe")
NEEDS = ("torch", "accelerate", "transformers", "diffusers", "cv2", "einops", "ftfy", "imagesize", "rich",
         "safetensors", "toml", "voluptuous")  # fmt: skip
# What sd-scripts would fetch for SD1.x, SDXL and Flux, for SDXL, and for SD2.x, and the token that pads texts there.
TOKENIZERS = {
    "openai/clip-vit-large-patch14": "<|endoftext|>",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": "<|endoftext|>",
    "stabilityai/stable-diffusion-2": "!",
}
T5_TOKENIZER = "google/t5-v1_1-xxl"


class PeerFailed(Exception):
    """Why sd-scripts could not be run, with the end of what it said."""


@dataclass(frozen=True)
class PeerRun:
    """One training of sd-scripts. `steps`: (seconds, loss) of each optimizer step, the loss being the mean over its
    batches; `cpu_s`: seconds of the CPU in each, of all threads. `start_s`: from the command to the first step's begin;
    `job_s`: to its end, the LoRA saved.
    """

    steps: tuple[tuple[float, float], ...]
    cpu_s: tuple[float, ...]
    start_s: float
    job_s: float
    peak_rss_mb: float
    peak_gpu_mb: float | None
    lora: Path


def find_python(folder: Path, given: Path | None = None) -> Path:
    """The Python to run the sd-scripts in `folder` with; where there is none yet, one is installed beside this file.

    In this order: `given`, the environment variable SD_SCRIPTS_PYTHON, a venv in or beside the folder, the running
    Python if it has what sd-scripts needs, one that was installed here before. PeerFailed if none can be had.
    """
    named = given or (Path(os.environ[PYTHON_VARIABLE]) if os.environ.get(PYTHON_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise PeerFailed(f"There is no Python at {named}.")
        return named.absolute()
    for place in (folder / "venv", folder / ".venv", folder.parent / "venv"):
        for program in PROGRAMS:
            if (place / program).is_file():
                return (place / program).absolute()
    if all(importlib.util.find_spec(need) for need in NEEDS):
        return Path(sys.executable)
    return installed_python(requirements(folder))


def requirements(folder: Path) -> tuple[str, ...]:
    """What `requirements.txt` names, without sd-scripts itself, and torch in the running one's version.

    OpenCV without windows, of the release series that sd-scripts was written for: it needs no libraries of a desktop.
    """
    import torch

    lines = (folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line.partition("#")[0].strip() for line in lines]
    kept = [name for name in names if name and not name.startswith(("-", "opencv-python", "torch"))]
    return (f"torch=={torch.__version__}", "opencv-python-headless<5", *kept)


def installed_python(needs: Sequence[str]) -> Path:
    """The Python of an environment with these packages, made where it is not there yet."""
    digest = hashlib.sha256("\n".join((sys.version, *needs)).encode("utf-8")).hexdigest()[:8]
    place = ENVIRONMENTS / f"sd-scripts-{digest}"
    stamp = place / "installed.txt"
    if not stamp.is_file():
        print(f"Installing sd-scripts' packages into {place} ...", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        # A build's own version (2.13.0+cpu) is found only where its index is; the plain one is everywhere.
        plain = [need.partition("+")[0] for need in needs]
        # Old pins without a wheel for this Python: the nearest version that has one.
        loose = [need.replace("safetensors==", "safetensors>=").replace("sentencepiece==", "sentencepiece>=")
                 for need in plain]  # fmt: skip
        _first_that_runs([[_program(place), "-m", "pip", "install", *names] for names in (needs, plain, loose)])
        stamp.write_text("\n".join(needs), encoding="utf-8")
    return Path(_program(place))


def _program(place: Path) -> str:
    return str(place / PROGRAMS[sys.platform == "win32"])


def _first_that_runs(commands: Sequence[list[str]]) -> None:
    for command in commands[:-1]:
        try:
            return _run(command)
        except PeerFailed:
            continue
    _run(commands[-1])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    if done.returncode:
        raise PeerFailed(f"{' '.join(command[:4])} ... failed:\n{done.stdout[-2000:]}")


def run_peer(
    python: Path,
    folder: Path,
    script: str,
    arguments: Sequence[str],
    workspace: Path,
    *,
    threads: int | None = None,
    cpu: bool | None = None,
    draws: Mapping[str, Any] | None = None,
    t5_tokenizer: Path | None = None,
) -> PeerRun:
    """Runs `script` (one of `peer_driver.TRAINERS`) of the sd-scripts in `folder` with its own `arguments`.

    They need not name a tokenizer: that is written into `workspace`, an existing folder, from the vocabulary that we
    have, and so is what sd-scripts says, `peer.log`; Flux needs a `t5_tokenizer` (tokenizer.json). `threads`: of torch
    on the CPU, by default as torch chooses. `cpu`: keep away from a GPU, by default if our torch has none. `draws`:
    what `peer_draws.py` injects. PeerFailed if the run fails.
    """
    record, orders, log = (workspace / name for name in ("peer.jsonl", "peer.json", "peer.log"))
    record.unlink(missing_ok=True)
    cache = write_tokenizers(workspace / "tokenizers", t5_tokenizer)
    order = {"folder": str(folder.resolve()), "script": script, "record": str(record.resolve()), "draws": draws,
             "arguments": [*arguments, "--tokenizer_cache_dir", str(cache.resolve())]}  # fmt: skip
    orders.write_text(json.dumps(order), encoding="utf-8")
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as said:
        done = subprocess.run(
            [str(python), str(DRIVER.resolve()), str(orders.resolve())],
            stdout=said, stderr=subprocess.STDOUT, env=environment(threads, _without_gpu() if cpu is None else cpu),
        )  # fmt: skip
    ended = time.monotonic()
    events = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()] if record.is_file() else []
    if done.returncode or not events or events[-1]["event"] != "finished":
        raise PeerFailed(f"sd-scripts ended with code {done.returncode}:\n{_tail(log)}")
    end = events[-1]
    return PeerRun(
        steps=tuple((event["seconds"], event["loss"]) for event in events if event["event"] == "step"),
        cpu_s=tuple(event["cpu"] for event in events if event["event"] == "step"),
        start_s=next(event["at"] for event in events if event["event"] == "begin") - began,
        job_s=ended - began,
        peak_rss_mb=end["peak_rss_mb"],
        peak_gpu_mb=end.get("peak_gpu_mb"),
        lora=Path(end["lora"]),
    )


def environment(threads: int | None, cpu: bool) -> dict[str, str]:
    """Offline, with sd-scripts' own packages only."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    kept |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUTF8": "1"}
    if threads:
        kept["OMP_NUM_THREADS"] = str(threads)
    if cpu:
        kept |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return kept


def _without_gpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line for line in lines[-25:])


def write_tokenizers(folder: Path, t5_tokenizer: Path | None = None) -> Path:
    """CLIP's tokenizers as transformers' `CLIPTokenizer` reads them from files, and T5's; returns `folder`."""
    from lora_trainer.training.families.tokenizer import BOS, EOS, clip_tokenizer

    for name, pad in TOKENIZERS.items():
        place = folder / name.replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        clip_tokenizer().backend_tokenizer.model.save(str(place))  # vocab.json, merges.txt
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        described = special | {"do_lower_case": True, "model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}
        for file, content in (("special_tokens_map", special), ("tokenizer_config", described)):
            (place / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    if t5_tokenizer:
        place = folder / T5_TOKENIZER.replace("/", "_")
        place.mkdir(exist_ok=True)
        shutil.copyfile(t5_tokenizer, place / "tokenizer.json")
    return folder

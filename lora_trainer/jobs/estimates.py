"""How long a training takes and how much memory, from what was measured on this machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lora_trainer.config import FAMILIES, SETTINGS, Config

UNKNOWN_MACHINE = "Nothing was measured on this machine yet: the first training's first steps will tell."
UNKNOWN_MODEL = "Nothing was measured with such a model yet: the first training's first steps will tell."
_LATEST = 5  # runs with the same settings that are counted


@dataclass(frozen=True)
class Measurement:
    """What a run was, and what it took.

    `pixels` are those of a batch, width * height * pictures; `accumulation` batches make a step. `seconds_per_step` is
    the median, `start_seconds` what passed before the first step, `peak_mb` MiB of the device.
    """

    at: float
    device: str
    base: str
    family: str
    pixels: int
    rank: int
    train: str
    precision: str
    checkpointing: bool
    optimizer: str
    seconds_per_step: float
    start_seconds: float
    peak_mb: float
    accumulation: int = 1
    spared: str = ""  # as `spared` has it


@dataclass(frozen=True)
class Estimate:
    """`seconds` of a whole run and `peak_mb` MiB of memory, None where nothing is known of them; `why` is a sentence.

    A `guess` is scaled from a run with other settings: its memory is rather too much than too little.
    """

    seconds: float | None
    peak_mb: float | None
    guess: bool
    why: str


def read_measurement(facts: Mapping[str, Any]) -> Measurement | None:
    """The measurement that a worker's event holds; None where a fact is missing or is no such fact."""
    row: dict[str, Any] = {"accumulation": 1, "spared": ""} | {name: facts[name] for name in _KINDS if name in facts}
    sound = row.keys() == _KINDS.keys() and all(_is_of(kind, row[name]) for name, kind in _KINDS.items())
    return Measurement(**row) if sound else None


_KINDS = get_type_hints(Measurement)


def _is_of(kind: type, value: Any) -> bool:
    if kind is int:
        return type(value) is int and value >= 1
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value) and value >= 0
    return isinstance(value, kind)


def estimate(config: Config, steps: int | None, history: Sequence[Measurement]) -> Estimate:
    """For `config` over that many optimizer steps. `history` is from the oldest to the newest measurement.

    Counted are those of the device that was measured last: a machine's graphics card is replaced now and then.
    Between Flux and the other families, which are a fifth as large at most, nothing can be scaled.
    """
    wanted = _wanted(config, history)
    device = history[-1].device if history else ""
    is_flux = wanted.get("family") == "flux"
    here = [run for run in reversed(history) if run.device == device and (run.family == "flux") == is_flux]
    if not here:
        return Estimate(None, None, True, UNKNOWN_MODEL if history else UNKNOWN_MACHINE)
    same = [run for run in here if all(getattr(run, name) == value for name, value in wanted.items())][:_LATEST]
    if same:
        per_step, peak = statistics.median(run.seconds_per_step for run in same), max(run.peak_mb for run in same)
        start, why = statistics.median(run.start_seconds for run in same), f"As measured on {device}"
    else:
        nearest = min(here, key=lambda run: _distance(run, wanted))
        pixels = wanted["pixels"] / nearest.pixels
        per_step = nearest.seconds_per_step * pixels * wanted["accumulation"] / nearest.accumulation
        # A part of the memory does not grow with the pixels, and is not known.
        peak, start = nearest.peak_mb * max(1.0, pixels), nearest.start_seconds
        why = f"A guess from another run on {device}: {_described(nearest)}"
    if steps is None:
        return Estimate(None, peak, not same, f"{why}; how long it takes depends on the pictures, which aren't known.")
    return Estimate(start + steps * per_step, peak, not same, f"{why}.")


# How far apart two runs are that differ in one of these; ten times the pixels or ranks count as `math.log(10)`.
_WEIGHTS = {
    "family": 8.0, "train": 1.0, "precision": 2.0, "checkpointing": 1.0, "spared": 1.0, "optimizer": 0.5, "base": 0.1,
}  # fmt: skip


def _wanted(config: Config, history: Sequence[Measurement]) -> dict[str, Any]:
    """What is known of a run before it starts, in `Measurement`'s words; what is automatic is left out."""
    base = Path(config.base_model).name
    known = [run.family for run in history if run.base == base]
    family = config.family if config.family in FAMILIES else next(reversed(known), "sd15")
    filled = config.for_family(family)
    width, height = filled.resolution or SETTINGS["resolution"].family_defaults[family]
    wanted = {
        "pixels": width * height * filled.batch_size,
        "accumulation": filled.gradient_accumulation,
        "spared": spared(filled),
        "rank": filled.rank,
        "train": filled.train,
        "optimizer": filled.optimizer,
        "family": family if known or config.family in FAMILIES else None,
        "precision": None if filled.mixed_precision == "auto" else filled.mixed_precision,
        "checkpointing": {"on": True, "off": False}.get(filled.gradient_checkpointing),
    }
    if wanted["family"] is None:  # another base may be of any family
        wanted["base"] = base
    return {name: value for name, value in wanted.items() if value is not None}


def spared(config: Config) -> str:
    """What the settings do to need less memory, checkpointing aside: "", or such as "micro_batch 1, fp8"."""
    parts = f"micro_batch {config.micro_batch}" if 0 < config.micro_batch < config.batch_size else ""
    swapped = f"swap_blocks {config.swap_blocks}" if config.swap_blocks and config.family == "flux" else ""
    return ", ".join(filter(None, (parts, swapped, "" if config.base_precision == "auto" else config.base_precision)))


def _distance(run: Measurement, wanted: Mapping[str, Any]) -> float:
    known = {name: getattr(run, name) for name in _WEIGHTS}
    differing = sum(_WEIGHTS[name] for name, value in known.items() if wanted.get(name, value) != value)
    pixels = abs(math.log(run.pixels / wanted["pixels"]))
    return differing + pixels + abs(math.log(max(run.rank, 1) / max(wanted["rank"], 1))) / 10


def _described(run: Measurement) -> str:
    side = round(math.sqrt(run.pixels))
    return f"{run.family}, rank {run.rank}, as many pixels a batch as {side}x{side}"

"""Everything about a run that is known before a weight is loaded: what is trained on what, in how many steps."""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lora_trainer.config import FAMILIES, SETTINGS, BadInput, Config, Problem, dump_toml, notices, problems
from lora_trainer.dataset.buckets import Placement, buckets_for, place
from lora_trainer.dataset.epochs import plan_epoch
from lora_trainer.dataset.folders import Found, Picture, find_pictures
from lora_trainer.inspecting import BaseModel, identify

Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """`config` has the family's defaults filled in; `placements[i]` says how `pictures[i]` is cut."""

    config: Config
    base: BaseModel
    pictures: tuple[Picture, ...]
    placements: tuple[Placement, ...]
    left_out: tuple[Problem, ...]
    notices: tuple[str, ...]
    seed: int
    batches_per_epoch: int
    steps_per_epoch: int
    epochs: int
    total_steps: int

    @property
    def prediction_type(self) -> str:
        """What the U-Net predicts: as the settings say, else as the base's file says."""
        return self.base.prediction_type if self.config.prediction_type == "auto" else self.config.prediction_type

    @property
    def zero_terminal_snr(self) -> bool:
        wanted = self.config.zero_terminal_snr
        return self.base.zero_terminal_snr if wanted == "auto" else wanted == "on"

    @property
    def warmup_steps(self) -> int:
        return round(self.total_steps * self.config.warmup_percent / 100)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know of settings and pictures, though none of it stops the run."""
        return (*map(str, (*self.left_out, *notices(self.config))), *self.notices)

    def batches(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        """The epoch's batches (epochs count from 0): indices into `pictures`, one bucket a batch."""
        return plan_epoch(self.pictures, self.placements, self.config.batch_size, self.seed, epoch)


def make_plan(config: Config, processes: int = 1, seed: int | None = None) -> Plan:
    """Reads the base's header and the pictures' sizes. BadInput with every problem of settings, base and pictures.

    `processes`: how many train together; each takes its share of an optimizer step's batches.
    `seed`: one that all processes share, from `draw_seed`; without it this plan has its own.
    """
    base, config, found = _read(config)
    buckets = buckets_for(config)
    placements = tuple(place(picture.size, buckets) for picture in found.pictures)
    seed = draw_seed(config) if seed is None else seed
    plan = Plan(config, base, found.pictures, placements, found.left_out, found.notices, seed, 0, 0, 0, 0)
    batches = len(plan.batches(0))
    steps = math.ceil(batches / (config.gradient_accumulation * processes))
    total = config.max_steps or steps * config.epochs
    return replace(
        plan,
        batches_per_epoch=batches,
        steps_per_epoch=steps,
        epochs=math.ceil(total / steps),
        total_steps=total,
    )


def draw_seed(config: Config) -> int:
    """The config's seed, or a new one where it is -1."""
    return secrets.randbelow(2**32) if config.seed < 0 else config.seed


def filled(value: Value | None) -> Value:
    """A setting of a plan's config that its family's defaults, or another setting, have filled in."""
    if value is None:
        raise ValueError("the config has not been through for_family")
    return value


def fingerprint(plan: Plan) -> str:
    """Changes with whatever changes the run's result: settings, base, pictures, captions.

    Not with places of output, nor with what only costs memory or time.
    """
    without = {name: SETTINGS[name].default for name in ("comment", "gradient_checkpointing", "micro_batch", "savings")}
    config = replace(plan.config, output_folder="", seed=-1, **without)
    digest = hashlib.sha256(dump_toml(config).encode("utf-8"))
    base = plan.base.path
    if base.is_file():
        digest.update(f"{base.name}/{base.stat().st_size}".encode())
    for picture in plan.pictures:
        digest.update(f"{picture.path.name}/{picture.stamp}/{picture.caption}/{picture.subset.repeats}".encode())
    return digest.hexdigest()


def _read(config: Config) -> tuple[BaseModel, Config, Found]:
    """The base, the config with its family's defaults, and the pictures; the problems of all three come together."""
    base, filled, unusable = _base(config)
    faults = problems(filled if base else config)
    reported = {fault.setting.partition(".")[0] for fault in faults}
    sound = replace(filled, **{name: SETTINGS[name].default for name in reported}).for_family(filled.family)
    found = None
    try:
        found = find_pictures(sound)
    except BadInput as error:
        unusable += error.problems
    faults += tuple(fault for fault in unusable if fault.setting not in reported)
    if faults or base is None or found is None:
        raise BadInput(faults)
    return base, filled, found


def _base(config: Config) -> tuple[BaseModel | None, Config, list[Problem]]:
    """The base, the config with its family's defaults (a likely one's without a base), and what is wrong with it."""
    try:
        base = identify(Path(config.base_model))
    except BadInput as error:
        return None, config.for_family(config.family if config.family in FAMILIES else "sd15"), list(error.problems)
    stated = Problem("family", config.family, f"{base.path.name} is of the family {base.family}", 'Set it to "auto".')
    return base, config.for_family(base.family), [] if config.family in ("auto", base.family) else [stated]

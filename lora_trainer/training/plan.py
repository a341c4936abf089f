"""Everything about a run that is known before a weight is loaded: what is trained on what, in how many steps."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from lora_trainer.config import FAMILIES, SETTINGS, BadInput, Config, Problem, dump_toml, idle, notices, problems
from lora_trainer.config.block_choice import chosen_blocks
from lora_trainer.config.networks import FLUX_BLOCKS
from lora_trainer.dataset.buckets import Placement, buckets_for, place
from lora_trainer.dataset.epochs import plan_epoch
from lora_trainer.dataset.folders import Found, Picture, find_pictures
from lora_trainer.inspecting import BaseModel, flux, identify
from lora_trainer.inspecting.header import read_header
from lora_trainer.inspecting.parts import with_parts

Value = TypeVar("Value")

T5_LENGTHS = {"dev": 512, "schnell": 256}  # tokens of a text that Flux's variants were trained with


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
    base, asked, found = _read(config)
    config = effective(asked)
    buckets = buckets_for(config)
    placements = tuple(place(picture.size, buckets) for picture in found.pictures)
    seed = draw_seed(config) if seed is None else seed
    lost = tuple(str(notice) for notice in notices(asked) if notice not in notices(config))
    plan = Plan(config, base, found.pictures, placements, found.left_out, (*lost, *found.notices), seed, 0, 0, 0, 0)
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


def fitted(config: Config, base: BaseModel) -> tuple[BaseModel, Config, tuple[Problem, ...]]:
    """The base with the files of all its parts, the config with what the base decides, and what is wrong with both."""
    base, config, faults = with_parts(base, config.for_family(base.family))
    if base.family != "flux":
        return base, config, faults
    length = config.t5_length or T5_LENGTHS[base.variant]
    return base, replace(config, t5_length=length), (*faults, *_absent_blocks(config, base))


def _absent_blocks(config: Config, base: BaseModel) -> Iterator[Problem]:
    """Choices of blocks of which a Flux has fewer."""
    depth = flux.depth(flux.tensors_of("transformer", read_header(base.path).tensors))
    for name, count in zip(FLUX_BLOCKS, depth, strict=True):
        try:
            chosen_blocks(getattr(config, name), count)
        except ValueError as error:
            yield Problem(name, getattr(config, name), str(error), "Choose among the blocks that this base model has.")


def effective(config: Config) -> Config:
    """The config of a Flux without what only other families use, so that none of it acts or is recorded."""
    if config.family != "flux":
        return config
    foreign = set(idle(config)) - set(idle(replace(config, family="auto")))
    return replace(config, **{name: SETTINGS[name].default for name in foreign}).for_family("flux")


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
    costs = ("comment", "gradient_checkpointing", "micro_batch", "swap_blocks", "savings")
    without = {name: SETTINGS[name].default for name in costs}
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
    wrong = [] if config.family in ("auto", base.family) else [stated]
    base, config, faults = fitted(config, base)
    return base, config, [*wrong, *faults]

"""What can be done where memory is short: the rungs of a ladder, which keep the result the same as long as possible.

Each rung changes one setting of the plan's config; `Fit` takes one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lora_trainer.config import BadInput, Config
from lora_trainer.training.device import Precision, memory_of, precision_of, takes_fp8
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.learning import optimizer_of
from lora_trainer.training.models import checkpointing
from lora_trainer.training.optimizers import build_optimizer
from lora_trainer.training.plan import Plan
from lora_trainer.training.swapping import FLUX_WEIGHTS, weights_waiting
from lora_trainer.training.texts import can_be_cached

MOST_SWAPPED, SWAPPED_MORE = 35, 7  # blocks: at the most, and with each rung
STEP = 4.5 * 2**30  # bytes: what a picture of 1024 px, two blocks' copies and CUDA take (benchmarks/flux_memory.md)
BYTES_HELD = {"fp8": 1.0, "nf4": 0.5625}  # a weight's; NF4's blocks of 64 have 4 bytes more


@dataclass(frozen=True)
class Saving:
    """One rung that was taken: `setting` went from `before` to `after`."""

    name: str
    setting: str
    before: Any
    after: Any
    sentence: str

    def facts(self) -> dict[str, Any]:
        """As the event "adjusted" and a run's record have it."""
        return {
            "name": self.name,
            "setting": self.setting,
            "from": self.before,
            "to": self.after,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Rung:
    """`name` as in the setting `savings`. `after(plan, device)`: the setting's next value, None where nothing is left.

    `sentence` goes on from "Memory is short:", with the next value in place of {}. `loading`: it makes the models
    smaller, and so helps where these alone are too large.
    """

    name: str
    setting: str
    sentence: str
    after: Callable[[Plan, torch.device], Any]
    loading: bool = False


def _checkpointing(plan: Plan, device: torch.device) -> str | None:
    return None if checkpointing(plan.config, device) else "on"


def _micro_batch(plan: Plan, device: torch.device) -> int | None:
    """Half of the pictures that are computed at once, rounded up, until it is one."""
    widest = max(map(len, plan.batches(0)))
    at_once = min(plan.config.micro_batch or widest, widest)
    return None if at_once == 1 else (at_once + 1) // 2


def _cached_text(plan: Plan, device: torch.device) -> str | None:
    return "memory" if plan.config.cache_text == "off" and can_be_cached(plan) else None


def _optimizer_8bit(plan: Plan, device: torch.device) -> str | None:
    name = {"AdamW": "AdamW8bit", "Lion": "Lion8bit"}.get(optimizer_of(plan.config, device))
    if name is None:
        return None
    weight = torch.nn.Parameter(torch.zeros(64, 64, device=device))
    try:
        build_optimizer(name, [{"params": [weight], "lr": 1e-4}], plan.config.optimizer_args)
    except BadInput:  # bitsandbytes is not here, or does not run on this device, or does not take these arguments
        return None
    return name


def _swap(plan: Plan, device: torch.device) -> int | None:
    """Some blocks more, and at once so many that the rest of the weights leaves room for what is computed."""
    config, memory = plan.config, memory_of(device)
    if plan.base.family != "flux" or not memory or config.compile or config.gradient_checkpointing == "off":
        return None
    counts = range(config.swap_blocks + SWAPPED_MORE, MOST_SWAPPED + 1, SWAPPED_MORE)
    roomy = (count for count in counts if _weights_beside(plan, count, precision_of(plan, device)) <= memory - STEP)
    return next(roomy, MOST_SWAPPED if config.swap_blocks < MOST_SWAPPED else None)


def too_large(plan: Plan, device: torch.device) -> bool:
    """Whether a Flux's weights leave no room on a GPU for a step, so that to load them would be in vain."""
    memory = memory_of(device)
    if plan.base.family != "flux" or not memory:
        return False
    return _weights_beside(plan, plan.config.swap_blocks, precision_of(plan, device)) > memory - STEP


def _weights_beside(plan: Plan, swapped: int, precision: Precision) -> float:
    """Bytes of the weights that stay on the GPU. A file with the text encoders in it has more that are not counted."""
    each = BYTES_HELD.get(precision.hold or "", precision.compute.itemsize)
    return (min(plan.base.parameters, FLUX_WEIGHTS) - weights_waiting(swapped)) * each


def _fp8(plan: Plan, device: torch.device) -> str | None:
    return "fp8" if takes_fp8(device) and precision_of(plan, device).hold is None else None


RUNGS = (
    Rung(
        "checkpointing",
        "gradient_checkpointing",
        "what the U-Net computes on the way is computed a second time instead of being kept; the result stays the same,"
        " steps take about a quarter longer.",
        _checkpointing,
    ),
    Rung(
        "micro_batch",
        "micro_batch",
        "a batch's pictures are computed {} at a time; the step is still that of the whole batch.",
        _micro_batch,
    ),
    Rung(
        "cached_text",
        "cache_text",
        "every caption is encoded once and the text encoders are let go; the result stays the same.",
        _cached_text,
        loading=True,
    ),
    Rung(
        "swap",
        "swap_blocks",
        "{} of the base model's blocks wait in the computer's own memory until they are needed; the result stays the"
        " same, steps take longer.",
        _swap,
        loading=True,
    ),
    Rung(
        "optimizer_8bit",
        "optimizer",
        "the optimizer remembers earlier steps in 8 bits, beginning with the next one; the LoRA comes out a little"
        " different.",
        _optimizer_8bit,
    ),
    Rung(
        "fp8",
        "base_precision",
        "the base model's weights are held in 8 bits; the LoRA comes out a little different.",
        _fp8,
        loading=True,
    ),
)


def next_saving(plan: Plan, device: torch.device, loading: bool = False) -> Saving | None:
    """The first rung that is allowed and has something left to take; None where there is none.

    `loading`: only such as make the models smaller.
    """
    return next(_savings(plan, device, loading, lambda name: name in plan.config.savings), None)


def _savings(plan: Plan, device: torch.device, loading: bool, wanted: Callable[[str], bool]) -> Iterator[Saving]:
    for rung in RUNGS:
        if wanted(rung.name) and (rung.loading or not loading):
            after = rung.after(plan, device)
            if after is not None:
                sentence = f"Memory is short: {rung.sentence.format(after)}"
                yield Saving(rung.name, rung.setting, getattr(plan.config, rung.setting), after, sentence)


def adjusted(config: Config, savings: Iterable[Mapping[str, Any]]) -> Config:
    """The config of a run that goes on, with the savings (their `facts`) that it took before.

    A setting that the user has changed since is left as it is, and so is one whose saving was forbidden since.
    """
    for saving in savings:
        name, value = saving["setting"], saving["from"]
        if saving["name"] in config.savings and getattr(config, name) == value:
            config = replace(config, **{name: saving["to"]})
    return config


def too_little_memory(
    plan: Plan, device: torch.device, shortage: str, taken: Iterable[Mapping[str, Any]]
) -> TrainingFailed:
    """What ends the run: what was tried (`facts` of savings), what was forbidden, and what the user can do."""
    tried = ", ".join({saving["setting"]: f"{saving['setting']} = {saving['to']}" for saving in taken}.values())
    left = [saving.name for saving in _savings(plan, device, False, lambda name: name not in plan.config.savings)]
    cause = f"There is too little memory for this training ({shortage})" + (f", even with {tried}." if tried else ".")
    allow = f"Allow {' and '.join(left)} (the setting savings), lower" if left else "Lower"
    remedy = f"{allow} the resolution or the rank, or close other programs that use this memory, and train again."
    return TrainingFailed(cause, remedy, "out_of_memory")

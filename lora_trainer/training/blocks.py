"""The U-Net's blocks, counted as sd-scripts counts them, and weights for each of them.

SD1.x and SD2.x have 12 down, 1 mid and 12 up blocks (0..24), SDXL has 9, 3 and 9 (0..20): the entries of the original
layout's `input_blocks`, `middle_block` and `output_blocks`, SD's middle counting as one. Flux has 19 double blocks and
then 38 single ones (0..56), which stand in the places of the U-Net's down and up blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from lora_trainer.config import BadInput, Problem
from lora_trainer.config.networks import BLOCKS
from lora_trainer.training.choices import chosen

ORIGINAL = re.compile(r"(input_blocks|middle_block|output_blocks)[._](\d+)")
DIFFUSERS = re.compile(r"(down|up)_blocks[._](\d+)[._](resnets|attentions|downsamplers|upsamplers)[._](\d+)")
DIFFUSERS_MID = re.compile(r"mid_block[._](resnets|attentions)[._](\d+)")
INPUT_CONVOLUTION = re.compile(r"^(lora_unet_)?conv_in$")
FLUX = re.compile(r"(double|single)_blocks[._](\d+)")
BLOCKS_PER_LEVEL = 3

SHAPES: dict[str, Callable[[float], float]] = {
    "flat": lambda x: 1.0,
    "cosine": lambda x: math.cos(x * math.pi / 2),
    "sine": lambda x: math.sin(x * math.pi / 2),
    "linear": lambda x: x,
    "reverse": lambda x: 1 - x,
}


def block_count(family: str) -> int:
    """25 for SD1.x and SD2.x, 21 for SDXL, 57 for Flux."""
    return sum(BLOCKS[family])


def block_of(name: str, family: str) -> int | None:
    """The block that a module of the U-Net or of Flux lies in, by its diffusers or original name, or its LoRA key.

    None for a module outside the blocks (embeddings, output convolution, a text encoder's).
    """
    down, mid, _ = BLOCKS[family]
    place = _place(name)
    if place is None:
        return None
    part, index = place
    return {"down": index, "mid": down + min(index, mid - 1), "up": down + mid + index}[part]


def _place(name: str) -> tuple[str, int] | None:
    """The part (down, mid, up) and the index in it that a module name speaks of."""
    if match := FLUX.search(name):
        return {"double": "down", "single": "up"}[match[1]], int(match[2])
    if match := ORIGINAL.search(name):
        return {"input_blocks": "down", "middle_block": "mid", "output_blocks": "up"}[match[1]], int(match[2])
    if match := DIFFUSERS.search(name):
        # The first down block is the input convolution, which diffusers keeps apart; samplers come last in a level.
        first = 1 if match[1] == "down" else 0
        within = BLOCKS_PER_LEVEL - 1 if match[3].endswith("samplers") else int(match[4])
        return match[1], first + BLOCKS_PER_LEVEL * int(match[2]) + within
    if match := DIFFUSERS_MID.search(name):
        return "mid", 1 if match[1] == "attentions" else 2 * int(match[2])  # resnet, attention, resnet
    return ("down", 0) if INPUT_CONVOLUTION.search(name) else None


def block_weights(weights: str | Sequence[float], family: str) -> tuple[float, ...]:
    """One learning-rate weight per block, from a named shape, from numbers with commas between, or from a list.

    A shape runs over the down blocks and again over the up blocks, in their order, the mid blocks staying at 1, as the
    presets of sd-scripts' `down_lr_weight` and `up_lr_weight`; `cosine+0.25` adds 0.25 to it. For SDXL a list may also
    hold sd-scripts' 23 numbers, whose first and last (embeddings and output) train nothing.
    Raises BadInput for an unknown shape, a wrong count, or a number that is negative or not finite.
    """
    if isinstance(weights, str) and not re.match(r"[\d.+-]", weights.strip()):
        return _shaped(weights, family)
    numbers = _numbers(weights.split(",") if isinstance(weights, str) else weights)
    if family == "sdxl" and len(numbers) == block_count(family) + 2:
        numbers = numbers[1:-1]
    if len(numbers) != block_count(family):
        counts = " + ".join(str(count) for count in BLOCKS[family] if count)
        raise BadInput(_problem(weights, f"has {len(numbers)} numbers", f"Give {block_count(family)} ({counts})."))
    return numbers


def _shaped(text: str, family: str) -> tuple[float, ...]:
    down, mid, up = BLOCKS[family]
    name, _, base = text.partition("+")
    shape = chosen(SHAPES, name.strip(), "block_lr_weights")
    (lift,) = _numbers([base or 0])
    first, last = (tuple(shape(i / (blocks - 1)) + lift for i in range(blocks)) for blocks in (down, up))
    return first + (1.0,) * mid + last


def _numbers(parts: Sequence[str | float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        remedy = f"Give numbers, or one of: {', '.join(SHAPES)}."
        raise BadInput(_problem(parts, "is not a list of numbers", remedy)) from None
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise BadInput(_problem(parts, "holds a number below 0 or without end", "Use weights of 0 and above."))
    return numbers


def _problem(value: object, problem: str, remedy: str) -> Problem:
    return Problem("block_lr_weights", value, problem, remedy)

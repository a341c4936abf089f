"""How much a run writes to the disk."""

from __future__ import annotations

import math

from lora_trainer.config import FAMILIES, Config
from lora_trainer.config.block_choice import chosen_blocks
from lora_trainer.config.networks import FLUX_BLOCKS

# Numbers that a LoRA of rank 1 has: the sum of inputs and outputs over the layers that get one.
CLIP_L = 12 * (4 * (768 + 768) + 2 * (768 + 3072))
CLIP_G = 32 * (4 * (1280 + 1280) + 2 * (1280 + 5120))
DOUBLE = 2 * (3072 + 9216 + 3072 + 3072 + 2 * (3072 + 12288) + 3072 + 6 * 3072)  # a double block of Flux
SINGLE = 3072 + 21504 + 15360 + 3072 + 3072 + 3 * 3072  # a single one
BLOCKS = {"double_blocks": DOUBLE, "single_blocks": SINGLE}
NUMBERS = {
    "sd15": {"unet": 423_936, "text_encoder": CLIP_L},
    "sdxl": {"unet": 2_659_840, "text_encoder": CLIP_L + CLIP_G},
    "flux": {"unet": sum(count * BLOCKS[name] for name, count in FLUX_BLOCKS.items()), "text_encoder": CLIP_L},
}
BYTES = {"fp16": 2, "bf16": 2, "fp32": 4}
STATE_BYTES = 12  # for each number: itself in float32, and two that AdamW keeps


def disk_mb(config: Config, family: str, steps: int | None) -> float | None:
    """MiB of all the LoRAs and the training state of a run with AdamW; None where they are not known beforehand."""
    if config.kind != "LoRA" or config.block_wise or family not in NUMBERS or family not in FAMILIES:
        return None
    config = config.for_family(family)
    parts = NUMBERS[family] if config.train == "both" else {str(config.train): NUMBERS[family][str(config.train)]}
    try:
        left_out = _left_out(config) if "unet" in parts else 0
    except ValueError:  # no choice of blocks
        return None
    numbers = (sum(parts.values()) - left_out) * config.rank
    by_steps = steps // config.save_every_steps if steps and config.save_every_steps else 0
    saves = math.ceil(config.epochs / config.save_every_epochs) + by_steps
    if config.keep_last:
        saves = min(saves, config.keep_last)
    state = STATE_BYTES if config.save_state != "off" else 0
    return numbers * (saves * BYTES[config.save_precision] + state) / 2**20


def _left_out(config: Config) -> int:
    """The numbers of Flux's blocks that get no LoRA."""
    if config.family != "flux":
        return 0
    chosen = {name: len(chosen_blocks(getattr(config, name), count)) for name, count in FLUX_BLOCKS.items()}
    return sum((FLUX_BLOCKS[name] - chosen[name]) * BLOCKS[name] for name in FLUX_BLOCKS)

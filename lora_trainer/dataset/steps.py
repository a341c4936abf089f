"""How long a run is, from its pictures alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lora_trainer.config import FAMILIES, BadInput

if TYPE_CHECKING:
    from lora_trainer.config import Config


def count_steps(config: Config) -> int | None:
    """The optimizer steps of a run in one process, or None where its pictures cannot be read.

    A family of "auto" is taken as sd15, which decides only what the config leaves open of resolution and buckets.
    """
    try:
        from lora_trainer.dataset.buckets import buckets_for, place
        from lora_trainer.dataset.epochs import steps_per_epoch
        from lora_trainer.dataset.folders import find_pictures

        config = config.for_family(config.family if config.family in FAMILIES else "sd15")
        pictures = find_pictures(config).pictures
        buckets = buckets_for(config)
        batches = steps_per_epoch(pictures, [place(picture.size, buckets) for picture in pictures], config.batch_size)
    except (BadInput, ImportError):
        return None
    return config.max_steps or math.ceil(batches / config.gradient_accumulation) * config.epochs

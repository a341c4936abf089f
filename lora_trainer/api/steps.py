"""How long a run is, from what the datasets' indexes know of their pictures: without looking at a file."""

from __future__ import annotations

import math
from pathlib import Path

from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS
from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset.buckets import buckets_for, place
from lora_trainer.dataset.epochs import steps_per_epoch
from lora_trainer.dataset.folders import Picture
from lora_trainer.jobs.checks import family_of


def known_steps(config: Config, places: Places) -> int | None:
    """The optimizer steps of a config without problems; None where a folder is no dataset's, or has no pictures."""
    config = config.for_family(family_of(config))
    pictures: list[Picture] = []
    for subset in config.subsets:
        try:
            found = _pictures(Path(subset.folder), subset, config, places)
        except BadInput:
            return None
        pictures += found
    if not pictures:
        return None
    buckets = buckets_for(config)
    batches = steps_per_epoch(pictures, [place(picture.size, buckets) for picture in pictures], config.batch_size)
    return config.max_steps or math.ceil(batches / config.gradient_accumulation) * config.epochs


def _pictures(folder: Path, subset: Subset, config: Config, places: Places) -> list[Picture]:
    """Those of a dataset, or of one of its folders, as its index has them. BadInput where it is none."""
    whole = folder.parent == places.datasets
    if not (whole or folder.parent.parent == places.datasets):
        return []
    with SETS.use(folder if whole else folder.parent) as opened:
        entries = [entry for entry in opened.snapshot.entries if whole or entry.folder == folder.name]
    named = {entry.folder for entry in entries if repeats_and_class(entry.folder)[0]}
    return [
        Picture(folder, entry.width, entry.height, "", _repeated(subset, entry.folder, config), 0, (0, 0))
        for entry in entries
        if min(entry.size) > 0 and (not named or entry.folder in named)
    ]


def _repeated(subset: Subset, folder: str, config: Config) -> Subset:
    repeats = subset.repeats or repeats_and_class(folder)[0] or config.repeats
    return Subset(subset.folder, repeats, is_regularisation=subset.is_regularisation)

"""What a LoRA file tells of its dataset, in the shapes that sd-scripts writes and the WebUI's LoRA card reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_trainer.dataset.buckets import Placement
from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.epochs import repeats_of
from lora_trainer.dataset.folders import Picture


def tag_frequency(pictures: Sequence[Picture]) -> dict[str, dict[str, int]]:
    """{folder name: {tag in small letters: pictures that have it}}, repeats not counted (`ss_tag_frequency`)."""
    frequency: dict[str, Counter[str]] = {}
    for picture in pictures:
        counts = frequency.setdefault(Path(picture.subset.folder).name, Counter())
        counts.update(tag.lower() for tag in tags(picture.caption))
    return {folder: dict(counts) for folder, counts in frequency.items()}


def dataset_dirs(pictures: Sequence[Picture], *, regularisation: bool = False) -> dict[str, dict[str, int | None]]:
    """{folder name: {"n_repeats", "img_count"}} (`ss_dataset_dirs`, `ss_reg_dataset_dirs`).

    The second of two folders with one name is called "name (2)".
    """
    counts = Counter(picture.subset for picture in pictures if picture.subset.is_regularisation == regularisation)
    dirs: dict[str, dict[str, int | None]] = {}
    for subset, count in counts.items():
        dirs[_free_name(Path(subset.folder).name, dirs)] = {"n_repeats": subset.repeats, "img_count": count}
    return dirs


def bucket_info(pictures: Sequence[Picture], placements: Sequence[Placement]) -> dict[str, Any]:
    """{"buckets": {"0": {"resolution": [w, h], "count": n}}, "mean_img_ar_error": x} (`ss_bucket_info`).

    Counts include repeats; the error is the mean of |bucket's - picture's| width / height over the pictures.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for placement, repeats in zip(placements, repeats_of(pictures), strict=True):
        counts[placement.bucket] += repeats
    used = sorted(bucket for bucket, count in counts.items() if count)
    errors = [
        abs(placement.bucket[0] / placement.bucket[1] - picture.width / picture.height)
        for picture, placement in zip(pictures, placements, strict=True)
    ]
    return {
        "buckets": {
            str(number): {"resolution": list(bucket), "count": counts[bucket]} for number, bucket in enumerate(used)
        },
        "mean_img_ar_error": sum(errors) / len(errors) if errors else 0,
    }


def _free_name(name: str, taken: dict[str, Any]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free

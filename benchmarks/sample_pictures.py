"""Pictures with captions to train on, drawn from nothing and always the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

TAGS = ("1girl", "solo", "long hair", "red dress", "smile", "looking at viewer", "outdoors", "blue sky", "cloud",
        "standing", "hand on hip", "black shoes", "grass", "day", "full body")  # fmt: skip
FITTING = ((128, 128), (64, 256), (192, 64), (128, 128), (64, 256), (128, 128))
OTHERS = ((256, 256), (150, 300), (333, 200), (100, 90), (517, 331), (64, 70))


@dataclass(frozen=True)
class Folder:
    """`sizes`: width and height of each picture. `tags`: how many each caption has; `weighted`: some in brackets."""

    sizes: tuple[tuple[int, int], ...] = FITTING
    tags: int = 7
    weighted: bool = False
    transparent: bool = False


FOLDERS = {
    "fitting": Folder(),  # in buckets' sizes at resolution 128: nothing is resized
    "others": Folder(OTHERS),
    "large": Folder(((512, 512),) * 5),
    "wordy": Folder(tags=60),  # about 150 tokens
    "weighted": Folder(weighted=True),
    "see-through": Folder(transparent=True),
}


def make_pictures(parent: Path, name: str) -> Path:
    """The folder `name` of FOLDERS, in `parent`, made where it is not there yet."""
    folder, place = FOLDERS[name], parent / f"1_{name}"
    if not place.is_dir():
        place.mkdir(parents=True)
        for number, size in enumerate(folder.sizes):
            rng = np.random.default_rng(number)
            draw(size, rng, folder.transparent).save(place / f"{number}.png")
            (place / f"{number}.txt").write_text(caption(folder, rng), encoding="utf-8")
    return place


def draw(size: tuple[int, int], rng: np.random.Generator, transparent: bool) -> Image.Image:
    """Soft coloured clouds with some grain; `transparent`: white from the middle, fading out to the right."""
    clouds = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.normal(0, 8, (size[1], size[0], 3))
    picture = Image.fromarray(np.clip(np.asarray(clouds) + grain, 0, 255).astype(np.uint8))
    if transparent:
        fading = np.tile(np.linspace(510, 0, size[0]).clip(0, 255).astype(np.uint8), (size[1], 1))
        colours = np.where(fading[..., None] < 255, 255, np.asarray(picture)).astype(np.uint8)
        picture = Image.fromarray(np.dstack([colours, fading]))
    return picture


def caption(folder: Folder, rng: np.random.Generator) -> str:
    drawn = [str(tag) for tag in rng.choice(TAGS, folder.tags, replace=folder.tags > len(TAGS))]
    if folder.weighted:
        drawn = [f"({tag}:{1 + 0.1 * (place % 4):.1f})" if place % 2 else tag for place, tag in enumerate(drawn)]
    return ", ".join(drawn)

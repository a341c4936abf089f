"""How much of a subject whose place is known each way of cutting keeps.

`python -m benchmarks.focus [--each N] [--json OUT] [--sheet OUT]`. The other libraries are measured where they are
installed: smartcrop, pyvips (with pyvips-binary), opencv-contrib-python-headless below 5.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.scenes import GROUNDS, Scene, scenes
from lora_trainer.dataset.buckets import Box, Size
from lora_trainer.dataset.crop import SUBJECT, Focus, cut_for
from lora_trainer.preparing.cut_sheet import cut_sheet
from lora_trainer.preparing.focus import load_finder
from lora_trainer.preparing.saliency import find_subject

WANTED: tuple[Size, ...] = ((512, 512), (512, 768), (768, 512))
OF_SALIENCY = 256  # pixels, the longer side, that OpenCV's maps are made at

CutBox = Callable[[Image.Image, Size], Box]


@dataclass(frozen=True)
class Result:
    """Means over all scenes: share of the subject kept by the cut; how far its middle lies off the cut's, in terms of
    the cut's sides; its side in terms of the cut's; seconds a picture. `by_ground`: the share kept."""

    kept: float
    offset: float
    size: float
    seconds: float
    by_ground: dict[str, float]


def methods() -> dict[str, CutBox]:
    find = load_finder()
    found = {
        "centre": lambda image, wanted: cut_for(image.size, wanted).box,
        "focus": lambda image, wanted: cut_for(image.size, wanted, find(image)).box,
        "focus, no faces": lambda image, wanted: cut_for(image.size, wanted, _subject(image)).box,
    }
    if find_spec("smartcrop"):
        found["smartcrop"] = _smartcrop()
    if find_spec("pyvips"):
        found |= {f"libvips {interest}": _vips(interest) for interest in ("attention", "entropy")}
    if find_spec("cv2"):
        cv2 = import_module("cv2")
        if hasattr(cv2, "saliency"):
            cv2.setNumThreads(1)
            found["OpenCV spectral residual"] = _opencv(cv2.saliency.StaticSaliencySpectralResidual_create())
            found["OpenCV fine-grained"] = _opencv(cv2.saliency.StaticSaliencyFineGrained_create())
    return found


def measure(cut_box: CutBox, of: Sequence[Scene]) -> Result:
    rows: list[tuple[str, float, float, float]] = []
    spent = 0.0
    for scene in of:
        mask = np.asarray(scene.mask, dtype=float) / 255
        for wanted in WANTED:
            began = time.perf_counter()
            box = cut_box(scene.image, wanted)
            spent += time.perf_counter() - began
            rows.append((scene.ground, *_judge(box, mask)))
    kept, offset, size = (float(np.mean([row[place] for row in rows])) for place in (1, 2, 3))
    by_ground = {ground: float(np.mean([row[1] for row in rows if row[0] == ground])) for ground in GROUNDS}
    return Result(kept, offset, size, spent / len(rows), by_ground)


def _judge(box: Box, mask: np.ndarray) -> tuple[float, float, float]:
    """Share of the mask inside the box; distance of their middles and side of the mask's box, in the box's sides."""
    left, top, right, bottom = box
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    across = abs(float(columns[0] + columns[-1] + 1 - left - right)) / 2 / (right - left)
    down = abs(float(rows[0] + rows[-1] + 1 - top - bottom)) / 2 / (bottom - top)
    side = max(len(columns) / (right - left), len(rows) / (bottom - top))
    return float(mask[top:bottom, left:right].sum() / mask.sum()), max(across, down), side


def _subject(image: Image.Image) -> Focus | None:
    box = find_subject(image)
    return Focus(box, SUBJECT) if box else None


def _largest(size: Size, wanted: Size) -> Size:
    left, top, right, bottom = cut_for(size, wanted).box
    return right - left, bottom - top


def _smartcrop() -> CutBox:
    cropper = import_module("smartcrop").SmartCrop()

    def cut_box(image: Image.Image, wanted: Size) -> Box:
        width, height = (round(100 * side / max(wanted)) for side in wanted)
        best = cropper.crop(image, width=width, height=height)["top_crop"]
        return best["x"], best["y"], best["x"] + best["width"], best["y"] + best["height"]

    return cut_box


def _vips(interest: str) -> CutBox:
    pyvips = import_module("pyvips")

    def cut_box(image: Image.Image, wanted: Size) -> Box:
        width, height = _largest(image.size, wanted)
        picture = pyvips.Image.new_from_array(np.asarray(image)).copy(interpretation="srgb")
        cut = picture.smartcrop(width, height, interesting=interest)
        return -cut.xoffset, -cut.yoffset, width - cut.xoffset, height - cut.yoffset

    return cut_box


def _opencv(detector: Any) -> CutBox:
    """The window of the largest cut's size that holds most of the map; the middle one of equals."""

    def cut_box(image: Image.Image, wanted: Size) -> Box:
        small = image.copy()
        small.thumbnail((OF_SALIENCY, OF_SALIENCY))
        _, salient = detector.computeSaliency(np.ascontiguousarray(np.asarray(small)[..., ::-1]))
        width, height = _largest(image.size, wanted)
        x, y = _window(salient.sum(0), width, image.width), _window(salient.sum(1), height, image.height)
        return x, y, x + width, y + height

    return cut_box


def _window(profile: np.ndarray, length: int, whole: int) -> int:
    edges = np.linspace(0, whole, len(profile) + 1)
    summed = np.interp(np.arange(whole + 1), edges, np.concatenate([[0], np.cumsum(profile, dtype=float)]))
    inside = summed[length:] - summed[: whole + 1 - length]
    best = np.flatnonzero(inside >= inside.max() - 1e-9)
    return int(best[len(best) // 2])


def table(results: dict[str, Result]) -> str:
    """Markdown."""
    lines = [f"| | kept | off | size | s | {' | '.join(GROUNDS)} |", "|---" * (5 + len(GROUNDS)) + "|"]
    for name, result in results.items():
        by_ground = " | ".join(f"{100 * share:.1f}" for share in result.by_ground.values())
        figures = f"{100 * result.kept:.1f} % | {result.offset:.2f} | {result.size:.2f} | {result.seconds:.4f}"
        lines.append(f"| {name} | {figures} | {by_ground} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=40, help="scenes of each ground")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--sheet", type=Path, help="where a picture of the first cuts is written")
    given = parser.parse_args()
    made = list(scenes(given.each))
    results = {name: measure(cut_box, made) for name, cut_box in methods().items()}
    print(table(results))
    if given.json:
        figures = {name: vars(result) for name, result in results.items()}
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if given.sheet:
        first = [scene for ground in GROUNDS for scene in [one for one in made if one.ground == ground][:5]]
        _sheet(first).save(given.sheet)


def _sheet(shown: Sequence[Scene]) -> Image.Image:
    find = load_finder()
    found = [(scene.image, find(scene.image)) for scene in shown]
    return cut_sheet((image, cut_for(image.size, WANTED[0], focus), focus) for image, focus in found)


if __name__ == "__main__":
    main()

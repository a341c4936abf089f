"""What a picture is cut around: its main face, else what stands out."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from lora_trainer.dataset.crop import FACE, SUBJECT, Focus
from lora_trainer.preparing.faces import load_face_finder
from lora_trainer.preparing.saliency import find_subject


def load_finder() -> Callable[[Image.Image], Focus | None]:
    """What finds the focus of a picture (RGB or L), in several threads at once too; None: cut at the centre."""
    find_face = load_face_finder()

    def find(image: Image.Image) -> Focus | None:
        if face := find_face(image):
            return Focus(face, FACE)
        subject = find_subject(image)
        return Focus(subject, SUBJECT) if subject else None

    return find

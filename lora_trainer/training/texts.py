"""What the text encoders say of each caption: computed once where captions stay as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch

from lora_trainer.files import written_whole
from lora_trainer.training.families.text import Conditioning

Text = tuple[str, bool]  # a text, and whether weights such as (a:1.2) in it are read


class TextCache:
    """Conditionings of single texts, in memory, and in `folder` where there is one.

    `key` must change with everything besides the text that changes an encoding: encoders, clip skip, token length.
    """

    def __init__(self, encode: Callable[[str, bool], Conditioning], key: str, folder: Path | None = None):
        self._encode, self._key, self._folder = encode, key, folder
        self._memory: dict[Text, Conditioning] = {}

    def fill(self, texts: Sequence[Text]) -> None:
        for text in texts:
            self._memory[text] = self._stored(text, self._folder) if self._folder else self._encode(*text)

    def get(self, text: Text) -> Conditioning:
        """Of a text that was filled in."""
        return self._memory[text]

    def _stored(self, text: Text, folder: Path) -> Conditioning:
        name = hashlib.sha256(f"{self._key}/{text}".encode()).hexdigest()[:32]
        path = folder / f"{name}.safetensors"
        if path.is_file():
            tensors = safetensors.torch.load_file(path)
            return Conditioning(tensors["context"], tensors.get("pooled"))
        found = self._encode(*text)
        tensors = {"context": found.context} | ({} if found.pooled is None else {"pooled": found.pooled})
        with written_whole(path) as temporary:
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        return found


def stack(conditionings: Sequence[Conditioning]) -> Conditioning:
    """Conditionings of one text each as that of a batch."""
    pooled = [found.pooled for found in conditionings if found.pooled is not None]
    context = torch.cat([found.context for found in conditionings])
    return Conditioning(context, torch.cat(pooled) if pooled else None)

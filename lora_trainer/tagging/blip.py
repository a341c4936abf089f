"""BLIP: a sentence about a picture. Li et al., https://arxiv.org/abs/2201.12086"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lora_trainer.imports import UNUSED, without
from lora_trainer.tagging.onnx_model import Notice
from lora_trainer.tagging.weights import damaged, read_tokenizer
from lora_trainer.tagging.wording import TagOptions

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

MOST_TOKENS = 60
BEAMS = 3
BATCH_ON_GPU = 8


@dataclass(frozen=True)
class Blip:
    model: Any
    processor: Any
    tokenizer: Tokenizer
    device: torch.device

    @property
    def batch_size(self) -> int:
        return 1 if self.device.type == "cpu" else BATCH_ON_GPU

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The picture (RGB) as the model takes it: float32 (3, side, side), normalised."""
        pixels: np.ndarray = self.processor(image, return_tensors="np")["pixel_values"][0]
        return pixels

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        import torch

        batch = torch.from_numpy(np.stack(pixels)).to(self.device)
        tokens = self.model.generate(batch, max_new_tokens=MOST_TOKENS, num_beams=BEAMS, no_repeat_ngram_size=3)
        return [self.tokenizer.decode(row).strip() for row in tokens[:, 1:].tolist()]  # the first only begins it


def load(folder: Path, options: TagOptions, notice: Notice) -> Blip:
    """The model on the graphics card, if torch can use one. Raises BadInput where its files are damaged."""
    with without(*UNUSED):
        import torch
        from safetensors import SafetensorError
        from transformers import BlipForConditionalGeneration, BlipImageProcessor
    on_apple = "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device("cuda" if torch.cuda.is_available() else on_apple)
    try:
        model = BlipForConditionalGeneration.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        processor = BlipImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged(folder, f"has a file that is damaged or cut off ({error})") from error
    return Blip(model.eval().to(device), processor, read_tokenizer(folder / "tokenizer.json"), device)

"""What a training leaves in its job's folder, written as its worker would: previews, LoRAs, and the events of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from lora_trainer.jobs.event_log import EventWriter
from lora_trainer.jobs.folder import JobFolder

SAYS = {
    "ss_base_model_version": "sd_v1",
    "ss_sd_model_name": "base.safetensors",
    "ss_output_name": "zdm",
    "ss_steps": "70",
    "ss_epoch": "1",
    "ss_tag_frequency": json.dumps({"10_zdm": {"zdm": 7, "green hair": 5}}),
    "modelspec.trigger_phrase": "zdm",
}


@cache  # safetensors orders metadata otherwise each time
def lora(rank: int = 4, **says: str) -> bytes:
    """A LoRA of one module, which says what SAYS says and besides or instead what is given."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_down.weight": np.zeros((rank, 768), np.float16),
        f"{name}.lora_up.weight": np.zeros((320, rank), np.float16),
        f"{name}.alpha": np.array(rank / 2, np.float16),
    }
    metadata: Mapping[str, Any] = {**SAYS, **says}
    return save(tensors, {key: value for key, value in metadata.items() if value})


def draw(folder: JobFolder, name: str, colour: str, size: tuple[int, int] = (64, 64), **facts: Any) -> None:
    """A preview of one colour, and the event "sample" with these facts."""
    path = folder.samples / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    tell(folder, "sample", path=str(path), **facts)


def save_lora(folder: JobFolder, name: str, data: bytes, **facts: Any) -> Path:
    """A LoRA, and the event "saved" with these facts."""
    path = folder.models / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    tell(folder, "saved", path=str(path), **facts)
    return path


def tell(folder: JobFolder, kind: str, **facts: Any) -> None:
    with EventWriter(folder.events) as report:
        report(kind, **facts)


def train(
    folder: JobFolder, epochs: int = 2, prompts: tuple[str, ...] = ("zdm", "zdm, red"), name: str = "zdm"
) -> None:
    """A whole training of 70 steps an epoch, its LoRA saved after each."""
    for epoch in range(epochs + 1):
        if epoch:
            tell(folder, "progress", step=70 * epoch, steps=70 * epochs, epoch=epoch, loss=0.1, average=0.1)
            file = f"zdm-{epoch:06d}" if epoch < epochs else "zdm"
            save_lora(folder, f"{file}.safetensors", lora(ss_epoch=str(epoch)), epoch=epoch, step=70 * epoch)
        for number, prompt in enumerate(prompts):
            picture = f"epoch{epoch:06d}-{number:02d}-42.png"
            draw(folder, picture, COLOURS[epoch], epoch=epoch, step=70 * epoch, prompt=prompt, number=number)


COLOURS = ("yellow", "red", "lime", "blue")

"""The LoRA file: safetensors with the keys and the metadata that every tool reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from lora_trainer.files import written_whole
from lora_trainer.inspecting.header import read_header
from lora_trainer.training.families.tensors import read_tensors

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def save_lora(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], precision: str) -> None:
    """Writes `tensors` (any device and dtype) in "fp32", "fp16" or "bf16", whole or not at all.

    DoRA's lengths stay float32: rounded, each would move a whole column of the base's weight. `sshs_model_hash` and
    `sshs_legacy_hash` are added to the metadata, so that a WebUI need not compute them. OSError if the disk does not
    take it.
    """
    saved = {}
    for key, tensor in tensors.items():
        dtype = torch.float32 if key.endswith(".dora_scale") else PRECISIONS[precision]
        saved[key] = tensor.detach().to("cpu", dtype).contiguous()
    data = safetensors.torch.save(saved, {**metadata, **hashes(saved, metadata)})
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def load_lora(path: Path) -> dict[str, Tensor]:
    """The file's tensors as float32. BadInput if it can't be read."""
    return {key: tensor.to(torch.float32, copy=True) for key, tensor in read_tensors(read_header(path).tensors)}


def hashes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The two hashes of sd-webui-additional-networks, taken over the file as it would be with `ss_*` metadata only.

    The one covers all that follows the header, the older one 64 KiB at 1 MiB (its first eight digits).
    """
    data = safetensors.torch.save(dict(tensors), {k: v for k, v in metadata.items() if k.startswith("ss_")})
    start = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(data)[start:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    }

"""A file of tensors in each of the forms that checkpoints have."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(7.0),
    "empty": torch.zeros(0, 4),
    "ids": torch.arange(77)[None],
}


@pytest.fixture(params=["safetensors", "ckpt", "old ckpt"])
def file(request, tmp_path):
    path = tmp_path / "x.model"
    if request.param == "safetensors":
        save_file(TENSORS, path, metadata={"modelspec.title": "X"})
    else:
        torch.save({"state_dict": TENSORS, "step": 3}, path, _use_new_zipfile_serialization=request.param == "ckpt")
    return path

from __future__ import annotations

import pytest
import torch

from lora_trainer.config import BadInput
from lora_trainer.inspecting.header import read_header
from lora_trainer.training.families.tensors import read_tensors
from tests.model_files import TENSORS, file

__all__ = ["file"]


def test_tensors_come_one_by_one_as_they_were_written(file):
    found = dict(read_tensors(read_header(file).tensors))

    assert found.keys() == TENSORS.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in TENSORS.items()
    )


def test_a_long_checkpoint_is_opened_again_to_give_its_pages_back(tmp_path, monkeypatch):
    monkeypatch.setattr("lora_trainer.training.families.tensors.REOPEN_AFTER", 10)
    torch.save(TENSORS, tmp_path / "x.ckpt")

    found = dict(read_tensors(read_header(tmp_path / "x.ckpt").tensors))

    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_that_lost_its_numbers_is_refused_when_they_are_read(tmp_path, whole):
    """The old kind's table stands before its numbers, so that its header is whole."""
    file = tmp_path / "x.ckpt"
    torch.save(TENSORS, file, _use_new_zipfile_serialization=False)
    tensors = read_header(file).tensors
    file.write_bytes(file.read_bytes()[: None if whole else -60])

    if whole:
        assert dict(read_tensors(tensors)).keys() == TENSORS.keys()
    else:
        with pytest.raises(BadInput, match="is damaged"):
            list(read_tensors(tensors))

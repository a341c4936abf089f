from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

from lora_trainer.inspecting.checkpoint import ProgramCode, read_checkpoint
from lora_trainer.training.families.tensors import DTYPES

TENSORS = {name: torch.zeros(2, 3).to(dtype) for name, dtype in DTYPES.items()}


@pytest.mark.parametrize("zipped", [True, False])
def test_every_type_is_told_as_safetensors_writes_it(tmp_path, zipped):
    torch.save(TENSORS, tmp_path / "x.ckpt", _use_new_zipfile_serialization=zipped)

    found = read_checkpoint(tmp_path / "x.ckpt")

    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {name: (name, (2, 3)) for name in DTYPES}


@pytest.mark.parametrize("protocol", [2, 4])
def test_tables_as_training_programs_save_them(tmp_path, protocol):
    parameter = torch.nn.Parameter(torch.zeros(5))
    saved = {
        "epoch": 3,
        "optimizer_states": [{"lr": 1e-4, "betas": (0.9, 0.999), "done": True, "nothing": None, "large": 2**40}],
        "state_dict": OrderedDict(
            [("a.weight", torch.zeros(2, 2).half()), ("b", parameter), ("scalar", torch.tensor(1.0))]
        ),
        "extra": {"size": torch.Size([1, 2]), "dtype": torch.float16, "words": {"x"}, "bytes": b"abc"},
    }
    torch.save(saved, tmp_path / "x.ckpt", pickle_protocol=protocol)

    found = read_checkpoint(tmp_path / "x.ckpt")

    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
        "a.weight": ("F16", (2, 2)),
        "b": ("F32", (5,)),
        "scalar": ("F32", ()),
    }


def test_without_a_state_dict_every_tensor_is_named_by_its_place(tmp_path):
    torch.save([{"a": torch.zeros(1)}, (torch.zeros(2),)], tmp_path / "x.pt")

    assert {name: each.shape for name, each in read_checkpoint(tmp_path / "x.pt").items()} == {"0.a": (1,), "1.0": (2,)}


def test_the_numbers_are_not_read(tmp_path):
    """A tensor that shares another's storage, and one that looks at a part of a large one."""
    large = torch.zeros(1000, 1000)
    torch.save({"part": large[:2, :3], "turned": large.T}, tmp_path / "x.pt")

    shapes = {name: each.shape for name, each in read_checkpoint(tmp_path / "x.pt").items()}

    assert shapes == {"part": (2, 3), "turned": (1000, 1000)}


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", [Call(open, "victim", "w"), Call(eval, "1"), Call(torch.hub.load, "a", "b")])
def test_what_a_file_asks_to_be_called_is_refused(tmp_path, monkeypatch, call, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.zeros(1), "y": call}, "x.ckpt", _use_new_zipfile_serialization=zipped)

    with pytest.raises(ProgramCode):
        read_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "victim").exists()

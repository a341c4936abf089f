from __future__ import annotations

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lora_trainer.config import BadInput
from lora_trainer.inspecting.header import read_header
from lora_trainer.training.families.tensors import DTYPES
from tests.model_files import TENSORS, file

__all__ = ["file"]


def test_names_shapes_and_dtypes(file):
    found = read_header(file).tensors

    assert {name: (DTYPES[info.dtype], info.shape) for name, info in found.items()} == {
        name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in TENSORS.items()
    }


def test_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"modelspec.title": "X"})

    assert read_header(tmp_path / "x.safetensors").metadata == {"modelspec.title": "X"}


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, data):
    save_file(TENSORS, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    length = data.draw(st.integers(0, len(whole) - 1))
    cut.write_bytes(whole[:length])

    with pytest.raises(BadInput) as caught:
        read_header(cut)
    if length > 8:
        assert "is cut off" in str(caught.value)


def test_a_cut_off_checkpoint_is_refused(tmp_path):
    torch.save(TENSORS, tmp_path / "x.ckpt")
    (tmp_path / "x.ckpt").write_bytes((tmp_path / "x.ckpt").read_bytes()[:-400])

    with pytest.raises(BadInput, match="is damaged"):
        read_header(tmp_path / "x.ckpt")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@given(start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02\x8a\x0a"]), content=st.binary(max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arbitrary_bytes_are_refused(tmp_path, suffix, start, content):
    file = (tmp_path / "x").with_suffix(suffix)
    file.write_bytes(start + content)

    with pytest.raises(BadInput):
        read_header(file)


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "table",
    [
        {"a": entry(), "b": entry()},  # overlap
        {"a": entry(offsets=(4, 12))},  # a gap before it
        {"a": entry(offsets=(8, 0))},
        {"a": entry(offsets=(0, 4))},
        {"a": entry(shape=(-2,))},
        {"a": entry(shape=(2.0,))},
        {"a": entry(shape=(10**30,))},
        {"a": entry(dtype="Q4")},
        {"a": {"dtype": "F32"}},
        {"a": [1, 2, 3]},
        {"__metadata__": 3},
        {"a": entry(offsets=(True, 8))},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, table):
    header = json.dumps(table).encode("utf-8")
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))

    with pytest.raises(BadInput, match="is damaged"):
        read_header(tmp_path / "x.safetensors")


@pytest.mark.parametrize("header", [b"{" * 5000, b'{"a": ' + b"[" * 100_000, b"{\xff}", b"{}}"])
def test_a_header_that_is_no_json_is_refused(tmp_path, header):
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(BadInput, match="is damaged"):
        read_header(tmp_path / "x.safetensors")


def test_a_huge_header_length_is_refused_without_reading_it(tmp_path):
    (tmp_path / "x.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")

    with pytest.raises(BadInput, match="is damaged"):
        read_header(tmp_path / "x.safetensors")


class Attack:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (open, (str(self.victim), "w"))


def test_a_checkpoint_with_program_code_is_refused_and_the_code_never_run(tmp_path):
    torch.save({"state_dict": TENSORS, "callback": Attack(tmp_path / "victim")}, tmp_path / "x.ckpt")

    with pytest.raises(BadInput, match="program code"):
        read_header(tmp_path / "x.ckpt")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"\n  <html>", "a web page"),
        (b"GGUF\x03" + bytes(50), "a GGUF file"),
        (b"PK\x03\x04" + bytes(50), "is a pickled checkpoint"),
        (b"just some words in a file that is called a model", "is not a model file"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_model_is_named(tmp_path, content, what):
    (tmp_path / "x.safetensors").write_bytes(content)

    with pytest.raises(BadInput, match=what):
        read_header(tmp_path / "x.safetensors")


def test_a_header_whose_length_begins_like_another_format_is_still_read(tmp_path):
    # 0x3C, the first byte of a header of 60 bytes, is also the "<" of a web page.
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(0x3C)
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\x05")

    assert read_header(tmp_path / "x.safetensors").tensors["a"].shape == (1,)


def test_a_missing_file_is_named_without_its_folder(tmp_path):
    with pytest.raises(BadInput, match=r'base_model = "gone.safetensors": there is no such file') as caught:
        read_header(tmp_path / "gone.safetensors")
    assert str(tmp_path) not in str(caught.value)

"""Flux bases as their users have them, in every layout and precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_trainer.config import BadInput
from lora_trainer.inspecting import describe, flux, identify
from lora_trainer.inspecting.header import read_header
from tests.flux_files import Sizes, clip_tensors, make_flux, t5_tensors, transformer_shapes

LAYOUTS = ("bare", "prefixed", "all-in-one")


@pytest.mark.parametrize("variant", ["dev", "schnell"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16", "fp8", "nf4"])
def test_a_base_in_each_layout_and_precision(tmp_path: Path, variant: str, layout: str, dtype: str) -> None:
    base = identify(make_flux(tmp_path, variant, layout=layout, dtype=dtype, name="cats").transformer)

    assert (base.family, base.variant, base.prediction_type, base.layout) == ("flux", variant, "flow", "original")
    assert (base.precision, base.title, base.zero_terminal_snr) == (dtype, "cats", False)
    own = {"clip_l", "t5xxl", "ae"} if layout == "all-in-one" else set()
    assert base.parts == dict.fromkeys(own, base.path)


@pytest.mark.parametrize("dtype", ["bf16", "nf4"])
def test_numbers_are_counted_unpacked(tmp_path: Path, dtype: str) -> None:
    sizes = Sizes(double=2, single=3)
    base = identify(make_flux(tmp_path, dtype=dtype, sizes=sizes).transformer)

    shapes = transformer_shapes(sizes).values()
    assert base.parameters == sum(torch.Size(shape).numel() for shape in shapes)
    assert "2 double and 3 single blocks" in base.reasons
    assert any(reason.startswith("another depth") for reason in base.reasons)


def test_a_base_of_flux_own_depth_has_no_remark_on_it(write) -> None:
    names = [f"double_blocks.{number}.img_attn.qkv.weight" for number in range(19)]
    names += [f"single_blocks.{number}.linear1.weight" for number in range(38)]
    base = identify(write(dict.fromkeys(names, (1, 1))))

    assert base.variant == "schnell"
    assert "19 double and 38 single blocks" in base.reasons
    assert not any(reason.startswith("another depth") for reason in base.reasons)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_part_is_read_under_the_names_of_its_own_code(tmp_path: Path, layout: str) -> None:
    files = make_flux(tmp_path, layout=layout)

    own = flux.tensors_of("transformer", read_header(files.transformer).tensors)
    assert {name: own[name].shape for name in transformer_shapes()} == transformer_shapes()
    for part, made in {"clip_l": clip_tensors(), "t5xxl": t5_tensors()}.items():
        read = flux.tensors_of(part, read_header(files.parts[part]).tensors)
        assert {name: info.shape for name, info in read.items()} == {name: made[name].shape for name in made}
    assert not flux.tensors_of("ae", {})


@pytest.mark.parametrize("dtype", ["fp32", "nf4"])
def test_what_the_transformer_takes_is_what_its_parts_give(tmp_path: Path, dtype: str) -> None:
    files = make_flux(tmp_path, dtype=dtype, sizes=Sizes(context=128, pooled=192))
    needed = flux.inputs(flux.tensors_of("transformer", read_header(files.transformer).tensors))

    assert needed == {"clip_l": 192, "t5xxl": 128, "ae": 64}
    assert all(flux.width(part, read_header(files.parts[part]).tensors) == needed[part] for part in needed)


def test_a_packed_weight_without_its_shape_has_the_shape_in_the_file(tmp_path: Path) -> None:
    state = torch.tensor(list(b"[]"), dtype=torch.uint8)
    save_file({"x.weight": torch.zeros(8, 1), f"x.weight{flux.NF4_STATE}": state}, tmp_path / "x.safetensors")
    tensors = read_header(tmp_path / "x.safetensors").tensors

    assert flux.shape_of("x.weight", tensors) == (8, 1)
    assert flux.shape_of("y.weight", tensors) == ()


def test_a_base_in_fp4_is_not_read(tmp_path: Path) -> None:
    path = make_flux(tmp_path, dtype="nf4").transformer
    tensors = {name.replace("__nf4", "__fp4"): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path)

    with pytest.raises(BadInput, match="in a precision that can't be read"):
        identify(path)


def test_files_are_described(tmp_path: Path) -> None:
    whole = describe(make_flux(tmp_path / "whole", layout="all-in-one", dtype="nf4").transformer)
    files = make_flux(tmp_path, t5_dtype="fp8")

    assert (whole["kind"], whole["variant"], whole["precision"]) == ("base model", "dev", "nf4")
    assert whole["parts"] == ["clip_l", "t5xxl", "ae"]
    told = {part: describe(files.parts[part]) for part in ("clip_l", "t5xxl", "ae")}
    assert {part: facts["part"] for part, facts in told.items()} == {part: part for part in told}
    assert told["t5xxl"]["kind"] == "the text encoder T5-XXL" and told["t5xxl"]["precision"] == "fp8"


@pytest.mark.parametrize(("part", "what"), [("ae", "the autoencoder"), ("t5xxl", "the text encoder T5-XXL")])
def test_a_part_as_base_is_named_with_its_setting(tmp_path: Path, part: str, what: str) -> None:
    with pytest.raises(BadInput, match=f"is {what}.* the setting {part} takes this file"):
        identify(make_flux(tmp_path, t5_dtype="fp8").parts[part])


def test_a_cut_off_base(tmp_path: Path) -> None:
    path = make_flux(tmp_path).transformer
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)

    with pytest.raises(BadInput, match=r"is cut off: 2\.\d MiB of 4\.\d MiB are there\. Download it again\."):
        identify(path)


def test_a_gguf_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flux1-dev-Q4_K_S.gguf"
    path.write_bytes(b"GGUF" + bytes(60))

    with pytest.raises(BadInput, match="is a GGUF file, which can't be read yet"):
        identify(path)

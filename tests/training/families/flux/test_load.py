"""What is loaded against what was written, and against transformers' and diffusers' own models of the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from lora_trainer.config.problems import BadInput
from lora_trainer.inspecting import BaseModel
from lora_trainer.training.families.flux.load import load_ae, load_clip, load_t5, load_transformer
from lora_trainer.training.families.flux.transformer import FluxTransformer
from lora_trainer.training.held import HeldLinear, held
from lora_trainer.training.latents import decode, encode
from tests.flux_files import NF4_VALUES, ae_tensors, clip_tensors, nf4, t5_tensors, transformer_tensors
from tests.training.families.flux.conftest import Make

QKV = "double_blocks.0.img_attn.qkv"
T5_SHAPES = {name: tensor.shape for name, tensor in t5_tensors().items()}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def weights_of(model: FluxTransformer) -> dict[str, Tensor]:
    """Every weight by its name in a file, as it is computed with."""
    found = {name: tensor for name, tensor in model.named_parameters() if ".home." not in name}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, HeldLinear)}
    return found | {f"{name}.weight": layer.weight for name, layer in layers.items()}


def unpacked(name: str, tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """A weight that is packed as NF4: each half byte picks one of sixteen numbers, each 64 share a factor."""
    halves = torch.cat([tensors[name] >> 4, tensors[name] & 15], 1).flatten().long()
    return (NF4_VALUES[halves].view(-1, 64) * tensors[f"{name}.absmax"][:, None]).view(shape)


def as_meant(name: str, tensors: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """A tensor of a file, in whatever precision, as the float32 numbers that it stands for."""
    if f"{name}.absmax" in tensors:
        return unpacked(name, tensors, shape)
    return tensors[name].float() * tensors.get(f"{name.removesuffix('.weight')}.scale_weight", 1)


def layer_of(model: FluxTransformer, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def edited(base: BaseModel, folder: Path, changed: Mapping[str, Tensor | None]) -> BaseModel:
    """The base with tensors of its file changed, or left out where they are None."""
    content = {**load_file(base.path), **changed}
    save_file({name: tensor for name, tensor in content.items() if tensor is not None}, folder / "edited.safetensors")
    return replace(base, path=folder / "edited.safetensors")


@pytest.mark.parametrize("layout", ["bare", "prefixed", "all-in-one"])
@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_each_layout_gives_the_weights_that_were_written(flux: Make, layout: str, variant: str) -> None:
    _, base = flux(variant, layout=layout)
    model, written = load_transformer(base, torch.float32), transformer_tensors(variant=variant)
    found = weights_of(model)
    assert found.keys() == written.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in written.items())
    assert not model.training and not any(tensor.requires_grad for tensor in model.parameters())


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_narrow_numbers_are_computed_with_as_they_are(flux: Make, dtype: str) -> None:
    _, base = flux(dtype=dtype)
    found = weights_of(load_transformer(base, torch.float32))
    for name, tensor in transformer_tensors().items():
        assert torch.equal(found[name], tensor.to(DTYPES[dtype]).float()), name


@pytest.mark.parametrize("hold", [None, "nf4"])
def test_packed_numbers_are_computed_with_as_bitsandbytes_means_them(flux: Make, hold: str | None) -> None:
    files, base = flux(dtype="nf4")
    packed, found = load_file(files.transformer), weights_of(load_transformer(base, torch.float32, hold=hold))
    for name, tensor in transformer_tensors().items():
        wanted = unpacked(name, packed, tensor.shape) if tensor.ndim == 2 else tensor
        torch.testing.assert_close(found[name], wanted, msg=name)


@pytest.mark.parametrize("hold", [None, "fp8"])
def test_numbers_with_a_scale_are_multiplied_by_it(flux: Make, hold: str | None) -> None:
    files, base = flux(dtype="scaled fp8")
    written, model = load_file(files.transformer), load_transformer(base, torch.float32, hold=hold)
    weight = written[f"{QKV}.weight"].float() * written[f"{QKV}.scale_weight"]
    torch.testing.assert_close(layer_of(model, QKV).weight, weight)
    assert held(layer_of(model, QKV)).kind == (hold or "")
    assert (weight - transformer_tensors()[f"{QKV}.weight"]).abs().max() < 0.01


def test_factors_that_are_packed_themselves_are_read(flux: Make, tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    _, base = flux()
    weight = load_file(base.path)[f"{QKV}.weight"]
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
    beside = {f"{QKV}.weight.{key}": tensor for key, tensor in state.as_dict(packed=True).items()}
    nested = edited(base, tmp_path, {f"{QKV}.weight": packed, **beside})
    found = layer_of(load_transformer(nested, torch.float32), QKV)
    torch.testing.assert_close(found.weight, functional.dequantize_4bit(packed, state))
    assert (found.weight - weight).std() < 0.15 * weight.std()


@pytest.mark.parametrize("hold", ["fp8", "nf4"])
def test_a_file_keeps_its_own_numbers_where_they_are_held_so(flux: Make, hold: str) -> None:
    files, base = flux(dtype=hold)
    layer = layer_of(load_transformer(base, torch.bfloat16, hold=hold), QKV)
    assert held(layer).kind == hold
    own = load_file(files.transformer)[f"{QKV}.weight"]
    assert torch.equal(held(layer).tensors[0].view(torch.uint8), own.view(torch.uint8))


@pytest.mark.parametrize(("hold", "error"), [("fp8", 0.05), ("nf4", 0.15)])
@pytest.mark.parametrize("dtype", ["fp32", "fp8", "nf4"])
def test_the_layers_of_blocks_are_rounded_on_their_way(flux: Make, hold: str, error: float, dtype: str) -> None:
    _, base = flux(dtype=dtype)
    model, exact = load_transformer(base, torch.float32, hold=hold), load_transformer(base, torch.float32)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            wanted, inside = layer_of(exact, name).weight, "_blocks." in name
            assert held(layer).kind == (hold if inside else "")
            assert (layer.weight - wanted).std() <= (error if inside else 0) * wanted.std()


def test_nothing_that_is_loaded_lies_in_the_file(flux: Make, tmp_path: Path) -> None:
    """The file may be written anew while a run goes on."""
    for dtype, hold in (("fp32", None), ("fp8", "fp8"), ("nf4", "nf4")):
        files, base = flux(dtype=dtype)
        copy = tmp_path / f"{dtype}.safetensors"
        copy.write_bytes(files.transformer.read_bytes())
        model = load_transformer(replace(base, path=copy), torch.float32, hold=hold)
        before = {name: tensor.clone() for name, tensor in weights_of(model).items()}
        with copy.open("r+b") as stream:
            stream.seek(copy.stat().st_size // 2)
            stream.write(bytes(copy.stat().st_size // 2))
        assert all(torch.equal(tensor, before[name]) for name, tensor in weights_of(model).items())


def test_blocks_that_wait_lie_in_host_memory(flux: Make) -> None:
    _, base = flux()
    model = load_transformer(base, torch.bfloat16, "meta", swap_blocks=2)
    for name in (QKV, "single_blocks.1.linear1"):
        assert held(layer_of(model, name)).tensors[0].device.type == "cpu"
        assert layer_of(model, name).bias.is_meta
    assert model.img_in.weight.is_meta
    assert held(layer_of(load_transformer(base, torch.bfloat16, "meta"), QKV)).tensors[0].is_meta


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"double_blocks.0.txt_mlp.2.bias": None}, "lacks the tensor double_blocks.0.txt_mlp.2.bias"),
        ({"img_in.bias": None}, "lacks the tensor img_in.bias"),
        ({"single_blocks.1.linear2.weight": torch.zeros(128, 8)}, "in the shape 128x8 instead of 128x640"),
        ({"img_in.bias": torch.zeros(100)}, "a width of 100"),
    ],
)
def test_what_is_missing_or_misshapen_is_named(
    flux: Make, tmp_path: Path, changed: dict[str, Tensor | None], said: str
) -> None:
    _, base = flux()
    with pytest.raises(BadInput) as raised:
        load_transformer(edited(base, tmp_path, changed), torch.float32)
    assert said in str(raised.value)
    assert raised.value.problems[0].setting == "base_model"


def test_packed_numbers_that_are_too_few_are_named(flux: Make, tmp_path: Path) -> None:
    _, base = flux(dtype="nf4")
    packed = nf4(f"{QKV}.weight", torch.ones(384, 128)) | {f"{QKV}.weight": torch.zeros(64, 1, dtype=torch.uint8)}
    with pytest.raises(BadInput, match=f"NF4 numbers in {QKV}.weight"):
        load_transformer(edited(base, tmp_path, packed), torch.float32)


def test_clip_is_the_one_of_transformers(flux: Make) -> None:
    _, base = flux(layout="all-in-one")
    config = CLIPTextConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=1, eos_token_id=49_407
    )
    theirs = CLIPTextModel(config).eval()
    theirs.load_state_dict({name: tensor.float() for name, tensor in clip_tensors().items() if "ids" not in name})
    ids = torch.tensor([[49_406, 320, 1125, 49_407, *[49_407] * 73]])
    ours = load_clip(base, torch.float32)(ids)
    torch.testing.assert_close(ours.pooler_output, theirs(ids).pooler_output)


def their_t5(tensors: dict[str, Tensor]) -> T5EncoderModel:
    config = T5Config(
        vocab_size=400, d_model=64, d_kv=64, d_ff=128, num_layers=2, num_heads=1, feed_forward_proj="gated-gelu"
    )
    model = T5EncoderModel(config).eval()
    model.load_state_dict(tensors, strict=False)
    return model


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp8", "scaled fp8", "nf4"])
def test_t5_is_the_one_of_transformers(flux: Make, dtype: str) -> None:
    _, base = flux(t5_dtype=dtype)
    model = load_t5(base, torch.float32)
    written = t5_tensors(dtype=dtype)
    theirs = their_t5({name: as_meant(name, written, shape) for name, shape in T5_SHAPES.items()})
    ids = torch.tensor([[7, 9, 30, 1, 0, 0]])
    for mask in (None, ids != 0):
        torch.testing.assert_close(model(ids, mask).last_hidden_state, theirs(ids, mask).last_hidden_state)
    layer = model.encoder.block[1].layer[1].DenseReluDense.wi_0
    assert held(layer).kind == {"fp8": "fp8", "scaled fp8": "fp8", "nf4": "nf4"}.get(dtype, "")


def test_t5_may_name_its_embeddings_otherwise(flux: Make, tmp_path: Path) -> None:
    _, base = flux()
    tensors = t5_tensors()
    save_file({"encoder.embed_tokens.weight": tensors.pop("shared.weight"), **tensors}, tmp_path / "t5.safetensors")
    ids = torch.tensor([[7, 9, 30, 1]])
    renamed = load_t5(replace(base, parts={**base.parts, "t5xxl": tmp_path / "t5.safetensors"}), torch.float32)
    torch.testing.assert_close(renamed(ids)[0], load_t5(base, torch.float32)(ids)[0])


def test_in_half_precision_the_layers_that_exceed_it_stay_exact(flux: Make) -> None:
    for dtype in ("fp32", "fp8"):
        _, base = flux(t5_dtype=dtype)
        model = load_t5(base, torch.float16)
        dense = model.encoder.block[0].layer[1].DenseReluDense
        assert (dense.wo.weight.dtype, dense.wi_0.weight.dtype) == (torch.float32, torch.float16)


@pytest.mark.parametrize("layout", ["bare", "all-in-one"])
def test_the_autoencoder_is_the_one_of_diffusers(flux: Make, layout: str) -> None:
    _, base = flux(layout=layout)
    config = {
        "block_out_channels": (32,) * 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 16,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    theirs = AutoencoderKL(**config).eval()
    theirs.load_state_dict(convert_ldm_vae_checkpoint(ae_tensors(), config))
    vae = load_ae(base, torch.float32)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    picture = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        posterior = theirs.encode(picture).latent_dist
        drawn = posterior.mean + posterior.std * torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(5))
        shown = theirs.decode(drawn).sample[0]
    latents = encode(vae, pixels, torch.Generator().manual_seed(5))
    torch.testing.assert_close(latents, (drawn[0] - 0.1159) * 0.3611, rtol=1e-4, atol=1e-4)
    wanted = ((shown.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(decode(vae, latents) - wanted).max() <= 1
    assert load_ae(base, torch.float32, decoder=False).decoder is None


@pytest.mark.parametrize(("part", "name"), [("clip_l", "fc1.bias"), ("t5xxl", "wo.weight"), ("ae", "conv_out.bias")])
def test_what_a_part_lacks_is_told_of_its_setting(flux: Make, tmp_path: Path, part: str, name: str) -> None:
    files, base = flux()
    tensors = load_file(files.parts[part])
    left_out = next(key for key in tensors if key.endswith(name))
    save_file({key: tensor for key, tensor in tensors.items() if key != left_out}, tmp_path / "cut.safetensors")
    load = {"clip_l": load_clip, "t5xxl": load_t5, "ae": load_ae}[part]
    with pytest.raises(BadInput) as raised:
        load(replace(base, parts={**base.parts, part: tmp_path / "cut.safetensors"}), torch.float32)
    assert left_out in str(raised.value)
    assert raised.value.problems[0].setting == part

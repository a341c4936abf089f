from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open

import lora_trainer.demo
from lora_trainer.demo.miniature import build, original_layout, to_unit_latents
from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, unet_names, vae_names

BASE = Path(lora_trainer.demo.__file__).parent / "base.safetensors"
TEXT_LAYER = [
    *(f"self_attn.{part}.{kind}" for part in ("q_proj", "k_proj", "v_proj", "out_proj") for kind in ("weight", "bias")),
    *(f"{part}.{kind}" for part in ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
]


@pytest.fixture(scope="module")
def base() -> Iterator[safe_open]:
    with safe_open(BASE, "pt") as file:
        yield file


def full_size_keys() -> set[str]:
    """The tensor names of SD1.5's single-file checkpoint; diffusers' default U-Net has its block structure."""
    vae: dict[str, object] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
    }
    vae |= {"up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4}
    with torch.device("meta"):
        keys = {
            UNET_PREFIX + name for name in unet_names(UNet2DConditionModel(cross_attention_dim=768).config).values()
        }
        keys |= {VAE_PREFIX + name for name in vae_names(AutoencoderKL(**vae).config).values()}
    text = [f"encoder.layers.{layer}.{part}" for layer in range(12) for part in TEXT_LAYER]
    text += ["final_layer_norm.weight", "final_layer_norm.bias", "embeddings.position_ids"]
    text += ["embeddings.token_embedding.weight", "embeddings.position_embedding.weight"]
    return keys | {f"cond_stage_model.transformer.text_model.{name}" for name in text}


def test_the_base_has_the_keys_of_a_full_sd15(base: safe_open) -> None:
    keys = set(base.keys())
    assert keys == full_size_keys()
    counts = [sum(key.startswith(prefix) for key in keys) for prefix in (UNET_PREFIX, VAE_PREFIX, "cond_stage_model.")]
    assert counts == [686, 248, 197]


def test_the_base_is_small_and_half_precision(base: safe_open) -> None:
    assert BASE.stat().st_size <= 24_000_000
    kinds = {key: base.get_slice(key).get_dtype() for key in base.keys()}  # noqa: SIM118 - safe_open is no mapping
    assert {key for key, kind in kinds.items() if kind != "F16"} == {
        "cond_stage_model.transformer.text_model.embeddings.position_ids"
    }


def test_the_base_says_what_its_weights_do_not(base: safe_open) -> None:
    told = base.metadata()
    assert told["modelspec.architecture"] == "stable-diffusion-v1"
    assert told["modelspec.prediction_type"] == "epsilon"
    assert told["modelspec.resolution"] == "64x64"
    assert [told[f"lora_trainer.{name}"] for name in ("norm_groups", "unet_heads", "text_heads")] == ["8", "8", "8"]


def test_vae_attention_is_stored_as_convolutions(base: safe_open) -> None:
    for part in ("q", "k", "v", "proj_out"):
        assert base.get_slice(f"first_stage_model.decoder.mid.attn_1.{part}.weight").get_shape() == [64, 64, 1, 1]


def test_the_report_tells_that_captions_steer_the_picture() -> None:
    report = json.loads((BASE.parent / "base_training.json").read_text(encoding="utf-8"))
    losses = report["loss_at_500"]
    assert losses["own"] < 0.6 * losses["empty"] and losses["own"] < 0.5 * losses["shuffled"]
    assert set(report["stages"]) == {"vae", "text", "unet", "decoder"}
    for stage in report["stages"].values():
        assert stage["curve"][-1][1] < stage["curve"][0][1]


@torch.no_grad()
def test_unit_latents_decode_to_the_same_picture() -> None:
    vae = build(0).vae
    pixels = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = vae.encode(pixels).latent_dist
    picture = vae.decode(before.mean).sample
    to_unit_latents(vae, before.mean)
    after = vae.encode(pixels).latent_dist
    scaled = after.mean * 0.18215
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(vae.decode(after.mean).sample, picture, atol=1e-4)
    assert torch.allclose(
        after.std / after.mean.std((0, 2, 3), keepdim=True),
        before.std / before.mean.std((0, 2, 3), keepdim=True),
        rtol=1e-3,
    )


def test_a_miniature_is_written_with_the_same_keys() -> None:
    tensors = original_layout(build(0))
    assert set(tensors) == full_size_keys()
    assert sum(tensor.nbytes for tensor in tensors.values()) <= 24_000_000

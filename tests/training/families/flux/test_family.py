"""Flux as a family: what is trained, and the prediction."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.training.families import family_of
from lora_trainer.training.families.flux.family import Flux
from lora_trainer.training.families.flux.transformer import FluxConfig, FluxTransformer
from lora_trainer.training.families.text import Conditioning
from tests.flux_files import REAL, transformer_shapes
from tests.training.families.flux.conftest import Make


def test_at_full_depth_304_layers_get_a_lora(flux: Make) -> None:
    _, base = flux()
    with torch.device("meta"):
        model = FluxTransformer(FluxConfig.of(transformer_shapes(REAL)))
    targets = family_of(base).denoiser_targets(model)
    wanted = {
        name.removesuffix(".weight"): "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        for name, shape in transformer_shapes(REAL).items()
        if "_blocks." in name and len(shape) == 2
    }
    assert targets == wanted
    assert len(targets) == 19 * 10 + 38 * 3


def test_of_the_text_encoders_clip_l_gets_one(flux: Make) -> None:
    _, base = flux()
    family = family_of(base)
    clip, t5 = family.load_text_encoders(base, torch.float32).encoders
    targets = family.text_encoder_targets(clip, 0)
    assert len(targets) == 2 * 6
    module = "text_model.encoder.layers.1.mlp.fc2"
    assert targets[module] == "lora_te1_text_model_encoder_layers_1_mlp_fc2"
    assert family.text_encoder_targets(t5, 1) == {}


@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_only_dev_is_told_a_guidance_scale(flux: Make, variant: str) -> None:
    _, base = flux(variant)
    family = family_of(base)
    assert isinstance(family, Flux)
    model = family.load_denoiser(base, torch.float32)
    text = Conditioning(torch.ones(2, 5, 64), torch.ones(2, 64))
    noisy, timesteps = torch.ones(2, 16, 4, 6), torch.tensor([500.0, 20.0])
    low, high = (family.denoise(model, noisy, timesteps, text, guidance=scale) for scale in (1.0, 3.5))
    assert low.shape == noisy.shape
    assert torch.equal(low, high) == (variant == "schnell")
    assert not torch.allclose(low[0], low[1], atol=1e-3)


def test_the_autoencoder_is_the_bases_part_whatever_the_vae(flux: Make) -> None:
    files, base = flux()
    vae = family_of(base).load_vae(base, files.t5xxl, torch.float32)
    assert (vae.config.latent_channels, vae.config.scaling_factor, vae.config.shift_factor) == (16, 0.3611, 0.1159)

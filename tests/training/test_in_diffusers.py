"""A saved LoRA as diffusers loads it: the models then compute what they compute with the trainer's own layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_trainer.inspecting import FAMILIES
from lora_trainer.training.families.sd import StableDiffusion
from lora_trainer.training.lora import LoraNetwork, Target
from lora_trainer.training.lora_file import save_lora
from tests.make_base import Models, build

PIPELINES: dict[str, Any] = {
    "sd15": StableDiffusionPipeline,
    "sd2": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
}


def network_in(models: Models, family: str, convolutions: bool) -> LoraNetwork:
    """Rank 3 and alpha 2 for Linear layers and 1x1 convolutions, rank 2 and alpha 1 for others; all weights random."""
    names = StableDiffusion(FAMILIES[family])
    targets = [
        Target(encoder, module, key, 3, 2.0)
        for place, encoder in enumerate(models.text_encoders)
        for module, key in names.text_encoder_targets(encoder, place).items()
    ]
    for module, key in names.denoiser_targets(models.unet, convolutions).items():
        wide = getattr(models.unet.get_submodule(module), "kernel_size", (1, 1)) != (1, 1)
        targets.append(Target(models.unet, module, key, *((2, 1.0) if wide else (3, 2.0))))
    network, generator = LoraNetwork(targets), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def predicted(unet: Any, family: str) -> Tensor:
    torch.manual_seed(2)
    width: int = unet.config.cross_attention_dim
    added = {"text_embeds": torch.randn(2, 16), "time_ids": torch.randn(2, 6)} if family == "sdxl" else None
    with torch.no_grad():
        return unet(torch.randn(2, 4, 8, 8), torch.tensor([1, 900]), torch.randn(2, 7, width), added_cond_kwargs=added)[
            0
        ]


def encoded(encoder: nn.Module) -> Tensor:
    with torch.no_grad():
        return encoder(torch.arange(1, 15).view(2, 7)).last_hidden_state


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize("family", PIPELINES)
def test_diffusers_computes_the_same(family: str, convolutions: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = build(family, small=True)
    theirs = copy.deepcopy(ours)
    for part in (ours.unet, theirs.unet, *ours.text_encoders, *theirs.text_encoders):
        part.eval().requires_grad_(False)
    plain = predicted(ours.unet, family)
    network = network_in(ours, family, convolutions)
    network.train(False)
    save_lora(tmp_path / "a.safetensors", network.state_dict(), {}, "fp32")

    pipeline, file = PIPELINES[family], load_file(tmp_path / "a.safetensors")
    state, alphas = pipeline.lora_state_dict(file, unet_config=theirs.unet.config)
    pipeline.load_lora_into_unet(state, alphas, theirs.unet)
    for place, encoder in enumerate(theirs.text_encoders):
        prefix = ("text_encoder", "text_encoder_2")[place]
        pipeline.load_lora_into_text_encoder(state, alphas, encoder, prefix=prefix)

    expected = predicted(ours.unet, family)
    assert (expected - plain).norm() > 0.1 * plain.norm()
    torch.testing.assert_close(predicted(theirs.unet, family), expected, atol=1e-4, rtol=1e-4)
    for mine, other in zip(ours.text_encoders, theirs.text_encoders):
        torch.testing.assert_close(encoded(other), encoded(mine), atol=1e-4, rtol=1e-4)

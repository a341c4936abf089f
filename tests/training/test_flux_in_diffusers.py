"""A saved LoRA of Flux as diffusers loads it: every tensor is used, and the models compute what they compute here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.full_depth import expected, made, modules
from lora_trainer.inspecting import FAMILIES
from lora_trainer.training.families.flux.family import Flux
from lora_trainer.training.lora import LoraNetwork, Target
from lora_trainer.training.lora_file import save_lora
from tests.flux_files import MINIATURE, transformer_tensors
from tests.training.families.flux.test_transformer import PUBLISHED, inputs, ours_of, predicted, spread, theirs_of

FAMILY = Flux(FAMILIES["flux"])
WIDTHS = {**dict.fromkeys(("to_q", "to_k", "to_v"), MINIATURE.hidden), "proj_mlp": MINIATURE.mlp}


def random_network(targets: list[Target]) -> LoraNetwork:
    network, generator = LoraNetwork(targets), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network


def in_diffusers(lora: dict[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' names for a miniature's LoRA, by its own converter.

    That cuts single blocks at the published width, so what is narrower is spread over that and cut again.
    """
    wide = {key: spread(key, lora[key], MINIATURE) if key.endswith("up.weight") else lora[key] for key in lora}
    found: Any = FluxPipeline.lora_state_dict(wide)
    return {key: cut(key, tensor) for key, tensor in found.items()}


def cut(key: str, tensor: Tensor) -> Tensor:
    layer = key.split(".")[-3]
    narrow = "single_transformer_blocks" in key and "lora_B" in key and layer in WIDTHS
    return tensor[: WIDTHS[layer]] if narrow else tensor


def test_diffusers_computes_the_same(tmp_path: Path) -> None:
    tensors = transformer_tensors(MINIATURE)
    ours, theirs = ours_of(tensors), theirs_of(tensors, MINIATURE, guidance=True)
    given, guidance = inputs(MINIATURE, 2, 6, 4), torch.tensor([1.0, 3.5])
    plain = ours(**given, guidance=guidance)
    names = FAMILY.denoiser_targets(ours)
    network = random_network([Target(ours, module, key, 3, 2.0) for module, key in names.items()])
    network.train(False)
    save_lora(tmp_path / "a.safetensors", network.state_dict(), {}, "fp32")

    FluxPipeline.load_lora_into_transformer(in_diffusers(load_file(tmp_path / "a.safetensors")), None, theirs)
    with torch.no_grad():
        changed = ours(**given, guidance=guidance)
        assert (changed - plain).norm() > 0.1 * plain.norm()
        torch.testing.assert_close(predicted(theirs, given, guidance), changed, atol=1e-4, rtol=1e-4)


def test_diffusers_encodes_texts_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=1
    )
    ours = CLIPTextModel(config).eval().requires_grad_(False)
    theirs, ids = copy.deepcopy(ours), torch.arange(1, 15).view(2, 7)
    plain = ours(ids).pooler_output
    names = FAMILY.text_encoder_targets(ours, 0)
    network = random_network([Target(ours, module, key, 3, 2.0) for module, key in names.items()])
    network.train(False)
    save_lora(tmp_path / "a.safetensors", network.state_dict(), {}, "fp32")

    file = load_file(tmp_path / "a.safetensors")
    # What sd-scripts calls lora_te1, diffusers 0.34 reads under an older name only.
    state: Any = FluxPipeline.lora_state_dict({key.replace("lora_te1_", "lora_te_"): file[key] for key in file})
    FluxPipeline.load_lora_into_text_encoder(state, None, theirs, prefix="text_encoder")
    with torch.no_grad():
        changed = ours(ids).pooler_output
        assert (changed - plain).norm() > 0.1 * plain.norm()
        torch.testing.assert_close(theirs(ids).pooler_output, changed, atol=1e-4, rtol=1e-4)


def test_a_lora_of_the_whole_model_has_what_the_format_says() -> None:
    ours = made(rank=16)
    assert ours == expected(rank=16)
    assert modules(ours) == 304


def test_diffusers_takes_every_module_of_the_whole_model() -> None:
    lora = {key: torch.ones(shape) for key, shape in made(rank=1).items()}
    found: Any = FluxPipeline.lora_state_dict(lora)
    with torch.device("meta"):
        layers = dict(FluxTransformer2DModel(guidance_embeds=True).named_modules())
    changed = {key.removeprefix("transformer.").rpartition(".lora_")[0] for key in found}
    assert len(changed) == 304 + 19 * 2 * 2 + 38 * 3  # queries, keys, values and MLPs stand apart there
    assert len(found) == 2 * len(changed)
    for key, tensor in found.items():
        layer: Any = layers[key.removeprefix("transformer.").rpartition(".lora_")[0]]
        inside, outside = (layer.in_features, 1), (layer.out_features, 1)
        assert tuple(tensor.shape) == (inside[::-1] if "lora_A" in key else outside)
    assert layers["x_embedder"].out_features == PUBLISHED

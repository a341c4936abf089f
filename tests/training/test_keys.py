"""The tensors of a full-size LoRA are those that sd-scripts writes, name by name and shape by shape.

Recorded from files that sd-scripts (48d368f) trained at rank 16 with `networks.lora`: SD1.5 with its text encoder, SDXL
without. The digests are of the lines "KEY 16x320", sorted by key.
"""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_trainer.config import Config
from lora_trainer.inspecting import FAMILIES
from lora_trainer.training.families import family_of
from lora_trainer.training.families.text import TextEncoders
from lora_trainer.training.lora import LoraNetwork
from lora_trainer.training.targets import targets
from tests.make_base import build

RECORDED = {
    "sd15": (792, "2873c90e42e1e366e636c07fc62e14ee4572e32c613eb1d4099889d8f81b787e"),
    "sdxl": (2166, "6cbc661074378d2ba0dc7e44d24a613e44e0981567750ecc13629030c22fdad5"),
}
SOME: dict[str, dict[str, tuple[int, ...]]] = {
    "sd15": {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (3072, 16),
        "lora_te_text_model_encoder_layers_2_self_attn_v_proj.lora_down.weight": (16, 768),
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q.alpha": (),
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k.lora_up.weight": (1280, 16),
        "lora_unet_up_blocks_2_attentions_1_proj_out.lora_down.weight": (16, 640, 1, 1),
    },
    "sdxl": {
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (16, 640),
        "lora_unet_input_blocks_8_1_transformer_blocks_9_attn1_to_q.alpha": (),
        "lora_unet_middle_block_1_transformer_blocks_7_attn1_to_k.lora_up.weight": (1280, 16),
        "lora_unet_output_blocks_0_1_transformer_blocks_4_ff_net_0_proj.lora_up.weight": (10240, 16),
    },
}


def shapes_of_a_full_size_lora(family: str, **settings: Any) -> dict[str, tuple[int, ...]]:
    """Of the network that a run would train, on modules without memory."""
    base: Any = SimpleNamespace(family=family)
    plan: Any = SimpleNamespace(config=Config(rank=16, alpha=8.0, **settings).for_family(family), base=base)
    with torch.device("meta"):
        models = build(family, small=False)
        encoders = TextEncoders(models.text_encoders, FAMILIES[family])
        network = LoraNetwork(targets(plan, family_of(base), models.unet, encoders))
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("family", "train"), [("sd15", "both"), ("sdxl", "unet")])
def test_names_and_shapes_are_those_of_sd_scripts(family: str, train: str) -> None:
    shapes = shapes_of_a_full_size_lora(family, train=train)
    count, recorded = RECORDED[family]
    assert {key: shapes[key] for key in SOME[family]} == SOME[family]
    assert len(shapes) == count
    lines = "".join(f"{key} {'x'.join(map(str, shape))}\n" for key, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode("utf-8")).hexdigest() == recorded


def test_xl_text_encoders_are_numbered() -> None:
    shapes = shapes_of_a_full_size_lora("sdxl", train="text_encoder")
    assert len(shapes) == 3 * 6 * (12 + 32)
    assert shapes["lora_te1_text_model_encoder_layers_11_self_attn_out_proj.lora_down.weight"] == (16, 768)
    assert shapes["lora_te2_text_model_encoder_layers_31_mlp_fc2.lora_down.weight"] == (16, 5120)

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.config import BadInput
from lora_trainer.config.settings import BLOCK_SHAPES
from lora_trainer.training.blocks import SHAPES, block_count, block_of, block_weights

# Block numbers as sd-scripts gives them; for SDXL it has one more at either end, which no LoRA of its own lies in.
FACTS = {
    "sd15": {
        "lora_unet_down_blocks_0_attentions_0_proj_in": 1,
        "lora_unet_down_blocks_0_resnets_1_conv1": 2,
        "lora_unet_down_blocks_0_downsamplers_0_conv": 3,
        "lora_unet_down_blocks_2_attentions_1_transformer_blocks_0_attn1_to_q": 8,
        "lora_unet_down_blocks_3_resnets_1_time_emb_proj": 11,
        "lora_unet_mid_block_attentions_0_proj_out": 12,
        "lora_unet_mid_block_resnets_1_conv2": 12,
        "lora_unet_up_blocks_0_upsamplers_0_conv": 15,
        "lora_unet_up_blocks_1_attentions_0_proj_in": 16,
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_2": 24,
        "lora_te_text_model_encoder_layers_0_mlp_fc1": None,
        "time_embedding.linear_1": None,
        "conv_out": None,
    },
    "sdxl": {
        "lora_unet_time_embed_0": None,
        "lora_unet_label_emb_0_0": None,
        "lora_unet_input_blocks_0_0": 0,
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q": 4,
        "lora_unet_input_blocks_8_1_proj_in": 8,
        "lora_unet_middle_block_0_in_layers_2": 9,
        "lora_unet_middle_block_1_transformer_blocks_9_ff_net_0_proj": 10,
        "lora_unet_middle_block_2_out_layers_3": 11,
        "lora_unet_output_blocks_0_1_proj_in": 12,
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_k": 17,
        "lora_unet_output_blocks_8_0_skip_connection": 20,
        "lora_unet_out_2": None,
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": None,
        "lora_te2_text_model_encoder_layers_31_self_attn_out_proj": None,
        "conv_in": 0,
        "add_embedding.linear_2": None,
        "conv_norm_out": None,
    },
    "flux": {
        "lora_unet_double_blocks_0_img_attn_qkv": 0,
        "double_blocks.18.txt_mod.lin": 18,
        "lora_unet_single_blocks_0_linear1": 19,
        "single_blocks.37.modulation.lin": 56,
        "img_in": None,
        "lora_te1_text_model_encoder_layers_0_mlp_fc1": None,
    },
}


@pytest.mark.parametrize(
    ("family", "name", "block"), [(family, *fact) for family, facts in FACTS.items() for fact in facts.items()]
)
def test_blocks_are_numbered_as_in_sd_scripts(family: str, name: str, block: int | None) -> None:
    assert block_of(name, family) == block


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_a_dotted_name_means_the_same(family: str) -> None:
    for part in ("down_blocks.1.attentions.1.proj_in", "mid_block.resnets.1.conv1", "up_blocks.2.resnets.2.conv2"):
        assert block_of(part, family) == block_of(f"lora_unet_{part.replace('.', '_')}", family) is not None


def sdxl_names() -> list[str]:
    """One module per entry of SDXL's original layout that diffusers' own converter can read."""
    inner = {0: "in_layers_2", 1: "proj_in"}
    places = [f"input_blocks_{i}_{j}" for i in (4, 5, 7, 8) for j in inner]
    places += [f"input_blocks_{i}_0" for i in (1, 2)] + ["middle_block_0", "middle_block_1", "middle_block_2"]
    places += [f"output_blocks_{i}_{j}" for i in range(6) for j in inner] + [f"output_blocks_{i}_0" for i in (6, 7, 8)]
    return [f"lora_unet_{place}_{inner[1 if place.endswith('_1') else 0]}" for place in places]


def test_both_layouts_of_sdxl_agree_by_diffusers_converter() -> None:
    class Config:
        layers_per_block = 2

    for name in sdxl_names():
        keys = {f"{other}.lora_down.weight": torch.tensor(i) for i, other in enumerate(sdxl_names())}
        wanted = keys[f"{name}.lora_down.weight"]
        converted = _maybe_map_sgm_blocks_to_diffusers(dict(keys), Config)
        (other,) = (key for key, value in converted.items() if value is wanted)
        for original, diffusers in (("input_blocks", "down_blocks"), ("output_blocks", "up_blocks")):
            other = other.replace(original, diffusers)  # the converter's caller does this part
        other = other.replace("middle_block", "mid_block")
        assert block_of(other, "sdxl") == block_of(name, "sdxl"), (name, other)


def unet_modules(**topology: object) -> list[str]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(norm_num_groups=4, attention_head_dim=4, cross_attention_dim=8, **topology)
    return [name for name, module in unet.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))]


def test_every_attention_of_sd15_has_its_own_block() -> None:
    names = unet_modules(block_out_channels=(4, 8, 8, 8))
    inputs = Counter(block_of(name, "sd15") for name in names if name.endswith("attn1.to_q"))
    assert inputs == Counter((1, 2, 4, 5, 7, 8, 12, *range(16, 25)))
    resnets = Counter(block_of(name, "sd15") for name in names if name.endswith("conv1"))
    assert resnets == Counter((1, 2, 4, 5, 7, 8, 10, 11, 12, 12, *range(13, 25)))
    samplers = [block_of(name, "sd15") for name in names if "samplers" in name]
    assert samplers == [3, 6, 9, 15, 18, 21]


def test_every_attention_of_sdxl_lies_in_its_block() -> None:
    names = unet_modules(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
    )
    inputs = Counter(block_of(name, "sdxl") for name in names if name.endswith("attn1.to_q"))
    assert inputs == Counter({4: 2, 5: 2, 7: 10, 8: 10, 10: 10, 12: 10, 13: 10, 14: 10, 15: 2, 16: 2, 17: 2})
    resnets = Counter(block_of(name, "sdxl") for name in names if name.endswith("conv1"))
    assert resnets == Counter((1, 2, 4, 5, 7, 8, 9, 11, *range(12, 21)))


@pytest.mark.parametrize(("family", "count"), [("sd15", 25), ("sd2", 25), ("sdxl", 21), ("flux", 57)])
def test_a_shape_has_one_weight_per_block(family: str, count: int) -> None:
    assert block_count(family) == count
    assert all(len(block_weights(shape, family)) == count for shape in SHAPES)
    assert block_weights("flat", family) == (1.0,) * count


def test_shapes_in_closed_form() -> None:
    rising = [i / 11 for i in range(12)]
    assert block_weights("linear", "sd15") == pytest.approx([*rising, 1, *rising])
    assert block_weights("reverse", "sd15") == pytest.approx([*rising[::-1], 1, *rising[::-1]])
    sine = [math.sin(math.pi / 2 * x) for x in rising]
    assert block_weights("sine", "sd15") == pytest.approx([*sine, 1, *sine])
    assert block_weights("cosine", "sd15") == pytest.approx([*sine[::-1], 1, *sine[::-1]])
    eighths = [i / 8 for i in range(9)]
    assert block_weights("linear", "sdxl") == pytest.approx([*eighths, 1, 1, 1, *eighths])
    double, single = ([i / last for i in range(last + 1)] for last in (18, 37))
    assert block_weights("linear", "flux") == pytest.approx([*double, *single])


def test_a_base_is_added_to_a_shape() -> None:
    plain, raised = block_weights("cosine", "sd15"), block_weights("cosine+.25", "sd15")
    assert raised[:12] == pytest.approx([weight + 0.25 for weight in plain[:12]])
    assert raised[12] == 1


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=25, max_size=25))
def test_a_list_is_taken_as_it_is(weights: list[float]) -> None:
    assert block_weights(weights, "sd15") == tuple(weights)
    assert block_weights(", ".join(map(repr, weights)), "sd2") == tuple(weights)


def test_the_23_numbers_of_sd_scripts_lose_their_ends() -> None:
    assert block_weights([9.0, *range(21), 9.0], "sdxl") == tuple(range(21))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("cosin", r"Did you mean cosine\?"),
        ("linear+x", "not a list of numbers"),
        ([1.0] * 24, "has 24 numbers. Give 25 "),
        ("1,2,x", "not a list of numbers"),
        ([-1.0] * 25, "below 0"),
        ([math.inf] * 25, "without end"),
    ],
)
def test_weights_that_cannot_be(weights: str | list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        block_weights(weights, "sd15")


def test_the_shapes_are_those_of_the_setting() -> None:
    assert tuple(SHAPES) == BLOCK_SHAPES

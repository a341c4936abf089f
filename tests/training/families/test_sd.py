from __future__ import annotations

import pytest
import torch

from lora_trainer.inspecting import FAMILIES, identify
from lora_trainer.training.families import family_of
from lora_trainer.training.families.sd import StableDiffusion
from lora_trainer.training.families.text import Conditioning
from tests.make_base import build

ATTENTION_MODULES = {"attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0", "ff_net_0_proj", "ff_net_2"}


@pytest.fixture(scope="module")
def full():
    """Full-size models without weights."""
    made = {}

    def of(family):
        if family not in made:
            with torch.device("meta"):
                made[family] = build(family, small=False)
        return made[family]

    return of


# The numbers of modules in the files that sd-scripts writes; SD2's text encoder has 23 used layers of 6 modules.
@pytest.mark.parametrize(
    ("family", "unet", "texts"), [("sd15", 192, [72]), ("sd2", 192, [144]), ("sdxl", 722, [72, 192])]
)
def test_as_many_modules_get_a_lora_as_sd_scripts_writes(full, family, unet, texts):
    sd, models = StableDiffusion(FAMILIES[family]), full(family)
    targets = [sd.denoiser_targets(models.unet)]
    targets += [sd.text_encoder_targets(encoder, place) for place, encoder in enumerate(models.text_encoders)]

    assert [len(found) for found in targets] == [unet, *texts]
    keys = [key for found in targets for key in found.values()]
    assert len(set(keys)) == len(keys)


# Recorded from files that sd-scripts wrote.
@pytest.mark.parametrize(
    ("family", "keys"),
    [
        (
            "sd15",
            {
                "lora_unet_down_blocks_0_attentions_0_proj_in",
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
                "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0",
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
                "lora_te_text_model_encoder_layers_11_mlp_fc2",
            },
        ),
        (
            "sdxl",
            {
                "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                "lora_unet_input_blocks_8_1_transformer_blocks_9_ff_net_2",
                "lora_unet_middle_block_1_proj_out",
                "lora_unet_output_blocks_0_1_transformer_blocks_0_attn2_to_k",
                "lora_unet_output_blocks_5_1_proj_in",
                "lora_te1_text_model_encoder_layers_0_mlp_fc1",
                "lora_te2_text_model_encoder_layers_31_self_attn_out_proj",
            },
        ),
    ],
)
def test_keys_are_sd_scripts_keys(full, family, keys):
    sd, models = StableDiffusion(FAMILIES[family]), full(family)
    found = set(sd.denoiser_targets(models.unet).values())
    for place, encoder in enumerate(models.text_encoders):
        found |= set(sd.text_encoder_targets(encoder, place).values())

    assert keys <= found


@pytest.mark.parametrize(
    ("family", "keys"),
    [
        (
            "sd15",
            {
                "lora_unet_down_blocks_0_resnets_0_conv1",
                "lora_unet_down_blocks_1_resnets_0_conv_shortcut",
                "lora_unet_down_blocks_0_downsamplers_0_conv",
                "lora_unet_mid_block_resnets_1_time_emb_proj",
                "lora_unet_up_blocks_0_upsamplers_0_conv",
            },
        ),
        (
            "sdxl",
            {
                "lora_unet_input_blocks_1_0_in_layers_2",
                "lora_unet_input_blocks_4_0_skip_connection",
                "lora_unet_input_blocks_3_0_op",
                "lora_unet_middle_block_2_emb_layers_1",
                "lora_unet_output_blocks_2_2_conv",
            },
        ),
    ],
)
def test_locon_adds_the_convolutions_of_resnets_and_samplers(full, family, keys):
    sd, unet = StableDiffusion(FAMILIES[family]), full(family).unet
    added = sd.denoiser_targets(unet, convolutions=True).keys() - sd.denoiser_targets(unet).keys()
    names = sd.denoiser_targets(unet, convolutions=True)

    assert keys <= {names[module] for module in added}
    assert all("conv" in module or module.endswith("time_emb_proj") for module in added)
    assert not any("attentions" in module for module in added)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_each_target_is_a_module_of_the_model(small, family):
    sd, unet = StableDiffusion(FAMILIES[family]), small(family).models.unet

    for module in sd.denoiser_targets(unet, convolutions=True):
        assert isinstance(unet.get_submodule(module), torch.nn.Linear | torch.nn.Conv2d)


def test_sdxl_is_told_the_pooled_text_and_the_sizes(small):
    sd, unet = family_of(identify(small("sdxl").path)), small("sdxl").models.unet
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    conditioning = Conditioning(torch.randn(2, 77, 40), torch.randn(2, 16))
    sizes = torch.tensor([[600.0, 800, 0, 16, 512, 512], [512.0, 512, 0, 0, 512, 512]])
    added = {"text_embeds": conditioning.pooled, "time_ids": sizes}
    with torch.no_grad():
        expected = unet(noisy, timesteps, conditioning.context, added_cond_kwargs=added).sample
        found = sd.denoise(unet, noisy, timesteps, conditioning, sizes)
        others = sd.denoise(unet, noisy, timesteps, conditioning, sizes.flip(1))

    assert torch.equal(found, expected)
    assert not torch.allclose(found, others)


def test_sd15_leaves_sizes_unread(small):
    sd, unet = family_of(identify(small("sd15").path)), small("sd15").models.unet
    noisy, timesteps, context = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.randn(1, 77, 24)
    with torch.no_grad():
        expected = unet(noisy, timesteps, context).sample
        found = sd.denoise(unet, noisy, timesteps, Conditioning(context), torch.ones(1, 6))

    assert torch.equal(found, expected)

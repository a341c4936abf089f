from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from lora_trainer.training.families.layout import UNET_PREFIX, VAE_PREFIX, open_clip_name, unet_module_name, unet_names
from tests.make_base import build, original_tensors

FAMILIES = ("sd15", "sd2", "sdxl")


def originals(small):
    """The base as diffusers' converters take it: original names with their prefixes."""
    return {
        name: parts[0][..., None, None] if how == "1x1" else parts[0]
        for name, parts, how in original_tensors(small.models, small.family)
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_diffusers_own_converter_turns_our_unet_names_back(small, family):
    unet = small(family).models.unet
    converted = convert_ldm_unet_checkpoint(originals(small(family)), unet.config)

    assert converted.keys() == unet.state_dict().keys()
    assert all(torch.equal(converted[name], weight) for name, weight in unet.state_dict().items())


def test_diffusers_own_converter_turns_our_vae_names_back(small):
    vae = small("sd15").models.vae
    converted = convert_ldm_vae_checkpoint(originals(small("sd15")), vae.config)

    assert converted.keys() == vae.state_dict().keys()
    assert all(torch.equal(converted[name], weight) for name, weight in vae.state_dict().items())


# The counts of tensors in the published checkpoints.
@pytest.mark.parametrize(("family", "count"), [("sd15", 686), ("sd2", 686), ("sdxl", 1680)])
def test_a_full_unet_has_the_published_number_of_tensors(family, count):
    with torch.device("meta"):
        models = build(family, small=False)
    names = [name for name, _, _ in original_tensors(models, family)]

    assert sum(name.startswith(UNET_PREFIX) for name in names) == count
    assert sum(name.startswith(VAE_PREFIX) for name in names) == 248
    assert len(set(names)) == len(names)


# Recorded from the key lists of the published SD1.5 and SDXL checkpoints.
@pytest.mark.parametrize(
    ("family", "diffusers", "original"),
    [
        ("sd15", "down_blocks.2.downsamplers.0.conv.weight", "input_blocks.9.0.op.weight"),
        ("sd15", "up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"),
        ("sd15", "up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
        ("sd15", "mid_block.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"),
        ("sd15", "time_embedding.linear_2.weight", "time_embed.2.weight"),
        ("sdxl", "add_embedding.linear_1.weight", "label_emb.0.0.weight"),
        ("sdxl", "down_blocks.1.attentions.0.proj_in.weight", "input_blocks.4.1.proj_in.weight"),
        ("sdxl", "up_blocks.2.resnets.2.conv_shortcut.bias", "output_blocks.8.0.skip_connection.bias"),
    ],
)
def test_known_names(small, family, diffusers, original):
    assert unet_names(small(family).models.unet.config)[diffusers] == original


def test_a_module_has_the_name_of_its_parameters(small):
    config = small("sdxl").models.unet.config

    assert (
        unet_module_name("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", config)
        == "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    )
    with pytest.raises(ValueError, match="down_blocks.1"):
        unet_module_name("down_blocks.1", config)


def test_open_clip_stacks_query_key_and_value():
    layer = "text_model.encoder.layers.3."

    assert open_clip_name(f"{layer}self_attn.v_proj.bias") == ("transformer.resblocks.3.attn.in_proj_bias", 2)
    assert open_clip_name(f"{layer}mlp.fc2.weight") == ("transformer.resblocks.3.mlp.c_proj.weight", None)
    with pytest.raises(ValueError, match="logit_scale"):
        open_clip_name("logit_scale")

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file

from lora_trainer.config import BadInput
from lora_trainer.inspecting import identify
from tests.make_base import make_base

UNET = "model.diffusion_model."
INPUT = f"{UNET}input_blocks.0.0.weight"
SD15 = {INPUT: (32, 4, 3, 3), "cond_stage_model.transformer.text_model.x": (2, 2), "first_stage_model.x": (2,)}


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_each_family_is_known_at_any_width(small, family):
    base = identify(small(family).path)

    assert (base.family, base.layout, base.prediction_type, base.zero_terminal_snr) == (
        family,
        "original",
        "epsilon",
        False,
    )
    assert (base.precision, base.title) == ("fp32", family)
    assert base.parameters == sum(tensor.numel() for tensor in load_file(small(family).path).values())


def test_a_base_is_plain_data_and_says_where_each_fact_was_read(small):
    base = identify(small("sd2").path)

    assert len(base.reasons) == 3
    assert "cond_stage_model.model" in base.reasons[0]
    assert "768-v" in base.reasons[1]  # SD2 can't be told from its shapes
    assert asdict(base)["metadata"]["lora_trainer.norm_groups"] == "8"


@pytest.mark.parametrize(
    ("extra", "metadata", "prediction", "zero"),
    [
        ({}, {}, "epsilon", False),
        ({"v_pred": (0,), "ztsnr": (0,)}, {}, "v", True),  # as NoobAI marks its files
        ({"v_pred": (0,)}, {}, "v", False),
        ({}, {"modelspec.prediction_type": "v"}, "v", False),
        ({}, {"modelspec.prediction_type": "v_prediction"}, "v", False),
        ({"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
        ({}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v", False),
        ({}, {"ss_zero_terminal_snr": "True"}, "epsilon", True),
    ],
)
def test_prediction_type_and_zero_terminal_snr(write, extra, metadata, prediction, zero):
    base = identify(write(SD15 | extra, metadata or None))

    assert (base.prediction_type, base.zero_terminal_snr) == (prediction, zero)


def test_the_title_comes_from_the_metadata(write):
    assert identify(write(SD15, {"modelspec.title": "Cats 3"})).title == "Cats 3"


def test_a_checkpoint(small, tmp_path):
    torch.save({"state_dict": load_file(small("sd15").path), "global_step": 7}, tmp_path / "cats.ckpt")
    base = identify(tmp_path / "cats.ckpt")

    assert (base.family, base.title, base.precision) == ("sd15", "cats", "fp32")


QKV = "double_blocks.0.img_attn.qkv"
FLUX = {f"{QKV}.weight": (384, 128), "img_in.weight": (128, 64)}
CLIP_WORDS = "text_model.embeddings.token_embedding.weight"
CLIP_L = {CLIP_WORDS: (9, 768), "text_model.encoder.layers.11.mlp.fc1.bias": (9,)}
T5_Q = "encoder.block.0.layer.0.SelfAttention.q"
T5 = {
    f"{T5_Q}.weight": (8, 2),
    "encoder.block.0.layer.1.DenseReluDense.wi_1.weight": (8, 2),
    "encoder.final_layer_norm.weight": (2,),
}
T5_POSITIONS = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"

# What a file holds, by names and shapes as its makers write them, and what the sentence must say.
WRONG = {
    "inpainting": (SD15 | {INPUT: (32, 9, 3, 3)}, "is an inpainting model"),
    "instruct-pix2pix": (SD15 | {INPUT: (32, 8, 3, 3)}, "is an InstructPix2Pix model"),
    "upscaler of latents": (SD15 | {INPUT: (32, 7, 3, 3)}, "is a latent upscaler model"),
    "depth": (SD15 | {INPUT: (32, 5, 3, 3)}, "is a depth-to-image model"),
    "ControlNet": ({"control_model.input_blocks.0.0.weight": (2, 4, 3, 3)}, "is a ControlNet"),
    "ControlNet of diffusers": ({"controlnet_cond_embedding.conv_in.weight": (2, 3, 3, 3)}, "is a ControlNet"),
    "ControlNet LLLite": ({"lllite_unet_input_blocks_1_1.down.0.weight": (2, 2)}, "is a ControlNet"),
    "T2I-Adapter": ({"body.0.block1.weight": (2, 2, 3, 3)}, "is a T2I-Adapter"),
    "IP-Adapter": ({"ip_adapter.1.to_k_ip.weight": (2, 768), "image_proj.norm.bias": (3,)}, "is an IP-Adapter"),
    "AnimateDiff": (
        {"down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": (2,)},
        "is an AnimateDiff motion module",
    ),
    "LoRA of sd-scripts": ({"lora_unet_mid_block_x.lora_down.weight": (4, 8)}, "is a LoRA"),
    "LoRA of diffusers": ({"unet.mid_block.x.processor.to_q_lora.down.weight": (4, 8)}, "is a LoRA"),
    "LoRA of PEFT": ({"transformer.x.lora_A.weight": (4, 8)}, "is a LoRA"),
    "LoHa": ({"lora_unet_x.hada_w1_a": (4, 8)}, "is a LoRA"),
    "LoKr": ({"lora_unet_x.lokr_w1": (4, 8)}, "is a LoRA"),
    "embedding": ({"emb_params": (4, 768)}, "is a textual inversion embedding"),
    "SDXL embedding": ({"clip_l": (4, 768), "clip_g": (4, 1280)}, "is a textual inversion embedding"),
    "VAE": ({"decoder.conv_in.weight": (2, 4, 3, 3), "encoder.conv_in.weight": (2, 3, 3, 3)}, "is a VAE alone"),
    "VAE with prefix": ({"first_stage_model.decoder.conv_in.weight": (2, 4, 3, 3)}, "is a VAE alone"),
    "text encoder": ({"text_model.encoder.layers.0.mlp.fc1.weight": (8, 2)}, "is a text encoder alone"),
    "a smaller T5": ({"encoder.block.0.layer.0.SelfAttention.q.weight": (8, 2)}, "is a text encoder alone"),
    "UMT5": (T5 | {T5_POSITIONS: (32, 2)}, "is a text encoder alone"),
    "a half of T5-XXL": (
        {name: shape for name, shape in T5.items() if "final" not in name},
        "is a text encoder alone",
    ),
    "T5-XXL": (T5, "is the text encoder T5-XXL"),
    "T5-XXL with a scale": (T5 | {"scaled_fp8": (0,), f"{T5_Q}.scale_weight": ()}, "is the text encoder T5-XXL"),
    "T5-XXL with scales": (T5 | {f"{T5_Q}.weight_scale": (8, 1)}, "is T5-XXL in a precision that can't be read"),
    "CLIP-L": (CLIP_L, "is the text encoder CLIP-L"),
    "CLIP-G": (CLIP_L | {CLIP_WORDS: (9, 1280)}, "is a text encoder alone"),
    "VAE of Flux": ({"decoder.conv_in.weight": (32, 16, 3, 3)}, "is the autoencoder of Flux or SD3"),
    "VAE of Flux.2": ({"decoder.conv_in.weight": (32, 32, 3, 3)}, "is a VAE alone"),
    "ESRGAN": ({"conv_first.weight": (8, 3, 3, 3), "conv_body.weight": (8, 8, 3, 3)}, "is an upscaler"),
    "old ESRGAN": ({"model.0.weight": (8, 3, 3, 3), "model.1.sub.0.x": (2,)}, "is an upscaler"),
    "refiner": ({INPUT: (32, 4, 3, 3), "conditioner.embedders.0.model.ln_final.bias": (2,)}, "is the SDXL refiner"),
    "SD3": ({f"{UNET}joint_blocks.0.x_block.mlp.fc1.bias": (2,)}, "is a Stable Diffusion 3 model"),
    "a piece of Flux": ({"double_blocks.7.img_attn.norm.key_norm.scale": (2,)}, "is only a piece of a Flux model"),
    "Flux of diffusers": (
        {"transformer_blocks.0.attn.add_q_proj.weight": (2, 2), "single_transformer_blocks.0.attn.to_q.weight": (2, 2)},
        "is a Flux model in the layout of diffusers",
    ),
    "the first file of Flux of diffusers": (
        {"transformer_blocks.0.attn.add_q_proj.weight": (2, 2), "x_embedder.weight": (2, 2)},
        "is a Flux model in the layout of diffusers",
    ),
    "Flux with scales": (FLUX | {f"{QKV}.scale_weight": (6, 1)}, "is a Flux model in a precision that can't be read"),
    "Flux Fill": (FLUX | {"img_in.weight": (128, 384)}, "is Flux Fill"),
    "Flux Canny": (
        {f"{UNET}{name}": shape for name, shape in (FLUX | {"img_in.weight": (128, 128)}).items()},
        "is Flux Depth or Flux Canny",
    ),
    "Flux Redux": ({"redux_up.weight": (9, 3), "redux_down.weight": (3, 9)}, "is Flux Redux"),
    "IP-Adapter of Flux": (
        {"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (2, 2)},
        "is an IP-Adapter",
    ),
    "ControlNet of Flux": ({"controlnet_blocks.0.weight": (2, 2), f"{QKV}.weight": (6, 2)}, "is a ControlNet"),
    "Chroma": (FLUX | {"distilled_guidance_layer.in_proj.weight": (2, 2)}, "is a Chroma model"),
    "Flux.2": (FLUX | {"double_stream_modulation_img.lin.weight": (2, 2)}, "is a Flux.2 model"),
    "HunyuanVideo": (
        {"double_blocks.0.img_attn_qkv.weight": (2, 2), "txt_in.individual_token_refiner.blocks.0.norm1.bias": (2,)},
        "is a Hunyuan model",
    ),
    "Stable Cascade": ({"clip_txt_mapper.weight": (2, 2)}, "is a Stable Cascade model"),
    "CosXL": (SD15 | {"edm_vpred.sigma_max": (1,)}, "is an EDM model"),
    "U-Net": ({"input_blocks.0.0.weight": (32, 4, 3, 3)}, "is a U-Net alone, without text encoder and VAE"),
    "U-Net with prefix": ({INPUT: (32, 4, 3, 3)}, "has a U-Net, but no text encoder"),
    "U-Net of diffusers": ({"down_blocks.0.resnets.0.conv1.weight": (2, 2, 3, 3)}, "is a U-Net alone"),
    "inpainting U-Net of diffusers": ({"conv_in.weight": (2, 9, 3, 3)}, "is an inpainting model"),
    "something else": ({"fc.weight": (10, 3), "fc.bias": (10,)}, "is no kind of model that is known here"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_kind_is_named_in_one_sentence(write, kind):
    shapes, sentence = WRONG[kind]

    with pytest.raises(BadInput) as caught:
        identify(write(shapes))

    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(f'base_model = "x.safetensors": {sentence}')
    assert "\n" not in str(caught.value)
    assert caught.value.problems[0].remedy.startswith("Choose ")


def test_a_pickled_embedding_of_the_webui(tmp_path):
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}, tmp_path / "x.pt")

    with pytest.raises(BadInput, match="is a textual inversion embedding"):
        identify(tmp_path / "x.pt")


def test_a_cut_off_base(tmp_path):
    path = make_base("sd15", tmp_path / "x.safetensors", small=True)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)

    with pytest.raises(BadInput, match=r"is cut off: 2\.6 MiB of 5\.3 MiB are there\. Download it again\."):
        identify(path)


def test_a_missing_file_and_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(BadInput, match="there is no such file"):
        identify(tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match=r"is a folder without model_index\.json"):
        identify(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """A diffusers folder of which only the JSON files are there."""

    def make(index, unet, scheduler=None):
        contents = {"model_index.json": index, "unet/config.json": unet, "scheduler/scheduler_config.json": scheduler}
        for name, content in contents.items():
            if content is not None:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("index", "unet", "sentence"),
    [
        (
            {"_class_name": "FluxPipeline"},
            None,
            "is a Flux model in the layout of diffusers",
        ),
        ({"_class_name": "KandinskyPipeline"}, {}, "is a KandinskyPipeline, which can't be trained"),
        ({"_class_name": "X", "text_encoder": ["a", "b"]}, {"in_channels": 9}, "is a X whose U-Net takes 9 channels"),
        ({"text_encoder": ["a", "b"]}, {}, "has no weights in safetensors format in its folder unet"),
    ],
)
def test_a_wrong_diffusers_folder(folder, index, unet, sentence):
    with pytest.raises(BadInput, match=sentence):
        identify(folder(index, unet))


def test_a_diffusers_folder_with_a_broken_config(folder):
    path = folder({"text_encoder": ["a", "b"]}, {})
    (path / "unet" / "config.json").write_text("{", encoding="utf-8")

    with pytest.raises(BadInput, match=r"has no readable config\.json"):
        identify(path)

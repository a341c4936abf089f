from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from lora_trainer.config import BadInput
from lora_trainer.inspecting import describe

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def lora(path, tensors, metadata=None):
    save_file(tensors, path, metadata)
    return path


def test_a_base(small):
    facts = describe(small("sdxl").path)

    assert (facts["kind"], facts["family"], facts["layout"]) == ("base model", "sdxl", "original")
    assert facts["size_bytes"] == small("sdxl").path.stat().st_size
    assert json.loads(json.dumps(facts)) == facts


def test_a_lora_of_sd_scripts(tmp_path):
    tensors = {
        f"{Q}.lora_down.weight": torch.zeros(8, 768, dtype=torch.float16),
        f"{Q}.lora_up.weight": torch.zeros(320, 8, dtype=torch.float16),
        f"{Q}.alpha": torch.tensor(4.0, dtype=torch.float16),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(16, 768, dtype=torch.float16),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(3072, 16, dtype=torch.float16),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(4.0, dtype=torch.float16),
    }
    metadata = {"ss_base_model_version": "sd_v1", "ss_tag_frequency": "{}", "modelspec.title": "Cats"}
    facts = describe(lora(tmp_path / "cats.safetensors", tensors, metadata))

    assert facts == {
        "kind": "LoRA",
        "file": "cats.safetensors",
        "size_bytes": (tmp_path / "cats.safetensors").stat().st_size,
        "precision": "fp16",
        "parameters": 8 * (768 + 320) + 16 * (768 + 3072) + 2,
        "metadata": {"modelspec.title": "Cats", "ss_base_model_version": "sd_v1"},
        "layout": "sd-scripts",
        "algorithm": "LoRA",
        "family": "sd15",
        "modules": {"unet": 1, "text encoder": 1} | facts["modules"],
        "ranks": {"8": 1, "16": 1} | facts["ranks"],
        "alphas": {"4": 2},
        "continue": {"possible": True, "settings": {"kind": "LoRA", "rank": 16, "train": "both"}},
    }
    assert sum(facts["modules"].values()) == sum(facts["ranks"].values()) == 2


# Names as sd-scripts, LyCORIS, diffusers and PEFT write them.
@pytest.mark.parametrize(
    ("shapes", "layout", "algorithm", "family", "ranks"),
    [
        ({f"{Q}.lora_down.weight": (4, 2048)}, "sd-scripts", "LoRA", "sdxl", {"4": 1}),
        ({f"{Q}.lora_down.weight": (4, 1024)}, "sd-scripts", "LoRA", "sd2", {"4": 1}),
        ({"lora_unet_x_conv1.lora_down.weight": (4, 8, 3, 3)}, "sd-scripts", "LoCon", "unknown", {"4": 1}),
        (
            {f"{Q}.lora_down.weight": (4, 768), f"{Q}.dora_scale": (320, 1)},
            "sd-scripts",
            "DoRA",
            "sd15",
            {"4": 1},
        ),
        ({f"{Q}.hada_w1_a": (320, 4), f"{Q}.hada_w1_b": (4, 768)}, "LyCORIS", "LoHa", "sd15", {"4": 1}),
        ({f"{Q}.lokr_w1": (8, 8), f"{Q}.lokr_w2_b": (4, 96)}, "LyCORIS", "LoKr", "sd15", {"4": 1}),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
            "diffusers",
            "LoRA",
            "sd15",
            {"4": 1},
        ),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight": (4, 768)},
            "diffusers",
            "LoRA",
            "sd15",
            {"4": 1},
        ),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 8)}, "sd-scripts", "LoRA", "flux", {"4": 1}),
        (
            {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)},
            "diffusers",
            "LoRA",
            "flux",
            {"4": 1},
        ),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": (4, 8)}, "XLabs", "LoRA", "flux", {"4": 1}),
        ({"diffusion_model.single_blocks.0.linear1.lora_A.weight": (4, 8)}, "ComfyUI", "LoRA", "flux", {"4": 1}),
        (
            {"lora_transformer_single_transformer_blocks_0_proj_mlp.lora_down.weight": (4, 8)},
            "sd-scripts",
            "LoRA",
            "flux",
            {"4": 1},
        ),
        (
            {"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": (4, 8)},
            "diffusers",
            "LoRA",
            "sd3",
            {"4": 1},
        ),
        ({f"base_model.model.{DOTTED}.lora_A.weight": (4, 1024)}, "PEFT", "LoRA", "sd2", {"4": 1}),
        ({f"{DOTTED}.lora_A.default.weight": (4, 768)}, "PEFT", "LoRA", "sd15", {"4": 1}),
        (
            {f"{DOTTED.removesuffix('to_k')}processor.to_k_lora.down.weight": (4, 2048)},
            "diffusers",
            "LoRA",
            "sdxl",
            {"4": 1},
        ),
        (
            {"text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight": (4, 8)},
            "diffusers",
            "LoRA",
            "sdxl",
            {"4": 1},
        ),
        (
            {"lycoris_mid_block_attentions_0_transformer_blocks_9_ff_net_2.lora_down.weight": (4, 8)},
            "LyCORIS",
            "LoRA",
            "sdxl",
            {"4": 1},
        ),
        (
            {"lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k.oft_blocks": (4, 8, 8)},
            "LyCORIS",
            "OFT",
            "sdxl",
            {},
        ),
        ({"lora_te_text_model_encoder_layers_11_mlp_fc1.on_input": ()}, "LyCORIS", "IA3", "sd15", {}),
        ({f"{Q}.diff": (320, 768), f"{Q}.diff_b": (320,)}, "LyCORIS", "full difference", "sd15", {}),
        (
            {"lora_unet_x_conv2.lora_down.weight": (4, 8, 1, 1), "lora_unet_x_conv2.lora_mid.weight": (4, 4, 3, 3)},
            "sd-scripts",
            "LoCon",
            "unknown",
            {"4": 1},
        ),
    ],
)
def test_layouts_algorithms_and_families(write, shapes, layout, algorithm, family, ranks):
    facts = describe(write(shapes))

    assert facts["kind"] == "LoRA"
    assert (facts["layout"], facts["algorithm"], facts["family"], facts["ranks"]) == (layout, algorithm, family, ranks)
    assert sum(facts["modules"].values()) == 1


def test_the_family_in_the_metadata_counts_more_than_widths(write):
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_module": "lycoris.kohya"}
    facts = describe(write({"lora_unet_x.lora_down.weight": (4, 8)}, metadata))

    assert (facts["family"], facts["layout"]) == ("sdxl", "LyCORIS")


def test_parts_and_convolutions_are_counted(write):
    shapes = {
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": (4, 8),
        "lora_unet_input_blocks_4_0_in_layers_2.lora_down.weight": (2, 8, 3, 3),
        "lora_unet_input_blocks_3_0_op.lora_down.weight": (2, 8, 3, 3),
        "lora_unet_input_blocks_4_0_emb_layers_1.lora_down.weight": (4, 8),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 8),
        "bundle_emb.cat.clip_g": (2, 1280),
    }
    facts = describe(write(shapes))

    assert facts["modules"] == {"unet": 2, "unet convolutions": 2, "text encoder": 1, "text encoder 2": 1}
    assert facts["continue"]["settings"] == {"kind": "LoCon", "rank": 4, "conv_rank": 2, "train": "both"}


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ({"lora_unet_x.lora_down.weight": (4, 8)}, "which family"),
        ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)}, "other names than Flux's own"),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 8)}, "it is for sd3"),
        ({f"{Q}.oft_blocks": (4, 8, 8), f"{Q}.diff": (320, 768)}, "the kind OFT"),
        ({f"{Q}.hada_w1_b": (4, 768), f"{Q}.hada_t1": (4, 4, 3, 3)}, "more than a LoHa does: hada_t1"),
        ({f"{Q}.lora_down.weight": (4, 768), f"{Q}.diff_b": (320,)}, "more than a LoRA does: diff_b"),
        ({f"{Q}.lora_down.weight": (4, 768), f"{Q}.dora_scale": (320, 1)}, "a length for each output"),
    ],
)
def test_what_no_training_can_start_from(write, shapes, why):
    going_on = describe(write(shapes))["continue"]

    assert not going_on["possible"] and why in going_on["why"]


def test_a_training_can_start_from_a_dora_of_lengths_per_input(write):
    facts = describe(write({f"{Q}.lora_down.weight": (4, 768), f"{Q}.dora_scale": (1, 768)}))

    assert facts["continue"]["settings"] == {"kind": "DoRA", "rank": 4, "train": "unet"}


def test_a_training_can_start_from_a_lora_of_flux(write):
    both = {"lora_unet_double_blocks_0_img_attn_qkv": 8, "lora_te1_text_model_encoder_layers_0_mlp_fc1": 4}
    facts = describe(write({f"{name}.lora_down.weight": (rank, 64) for name, rank in both.items()}))

    assert (facts["family"], facts["modules"]) == ("flux", {"transformer": 1, "text encoder": 1})
    assert facts["continue"]["settings"] == {"kind": "LoRA", "rank": 8, "train": "both"}


def test_the_most_frequent_tags(write):
    frequency = {"1_cat": {" cat": 5, "red": 2}, "2_cat": {"cat": 1, **{f"tag{number}": 1 for number in range(20)}}}
    shapes = {f"{Q}.lora_down.weight": (4, 768)}
    facts = describe(write(shapes, {"ss_tag_frequency": json.dumps(frequency)}))

    assert list(facts["tags"].items())[:2] == [("cat", 6), ("red", 2)] and len(facts["tags"]) == 10
    for broken in ("{", "[1]", '{"a": 1}', '{"a": {"b": "c"}}'):
        assert "tags" not in describe(write(shapes, {"ss_tag_frequency": broken}))


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ({"decoder.conv_in.weight": (2, 4, 3, 3)}, "a VAE alone"),
        ({"emb_params": (4, 768)}, "a textual inversion embedding"),
        ({"clip_g": (4, 1280), "clip_l": (4, 768)}, "a textual inversion embedding"),
        ({}, "a file without weights"),
    ],
)
def test_another_kind_is_described_by_its_name(write, shapes, kind):
    assert describe(write(shapes))["kind"] == kind


def test_a_hypernetwork(tmp_path):
    """As A1111 writes it: for each width a network for keys and one for values."""
    pair = ({"linear.0.weight": torch.zeros(8, 4)}, {"linear.0.weight": torch.zeros(8, 4)})
    torch.save({"name": "x", "step": 10, 320: pair, 768: pair}, tmp_path / "x.pt")

    assert describe(tmp_path / "x.pt")["kind"] == "a hypernetwork"


def test_what_is_no_model_is_bad_input(tmp_path):
    (tmp_path / "x.safetensors").write_text("hello", encoding="utf-8")

    with pytest.raises(BadInput):
        describe(tmp_path / "x.safetensors")

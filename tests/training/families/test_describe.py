from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from lora_trainer.config import BadInput
from lora_trainer.training.families import describe

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


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
        ({f"{Q}.lokr_w1": (8, 8), f"{Q}.lokr_w2_b": (4, 96)}, "LyCORIS", "LoKr", "unknown", {"4": 1}),
        (
            {"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight": (4, 768)},
            "PEFT",
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


def test_another_kind_is_described_by_its_name(write):
    assert describe(write({"decoder.conv_in.weight": (2, 4, 3, 3)}))["kind"] == "a VAE alone"


def test_what_is_no_model_is_bad_input(tmp_path):
    (tmp_path / "x.safetensors").write_text("hello", encoding="utf-8")

    with pytest.raises(BadInput):
        describe(tmp_path / "x.safetensors")

"""A LoRA's metadata becomes the config that it was trained with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lora_trainer.config import BadInput, Config, Subset, as_dict
from tests.config.interchange.conftest import Import, lora

# As sd-scripts' train_network.py writes it, shortened.
SD_SCRIPTS = {
    "ss_output_name": "zunda",
    "ss_learning_rate": "0.0001",
    "ss_text_encoder_lr": "5e-05",
    "ss_unet_lr": "None",
    "ss_num_batches_per_epoch": "70",
    "ss_num_epochs": "10",
    "ss_gradient_accumulation_steps": "1",
    "ss_max_train_steps": "700",
    "ss_lr_warmup_steps": "70",
    "ss_lr_scheduler": "cosine",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "16",
    "ss_network_alpha": "8.0",
    "ss_network_args": '{"conv_dim": "4", "conv_alpha": "1", "dropout": null}',
    "ss_mixed_precision": "fp16",
    "ss_full_fp16": "False",
    "ss_v2": "False",
    "ss_base_model_version": "sdxl_base_v1-0",
    "modelspec.prediction_type": "epsilon",
    "ss_clip_skip": "None",
    "ss_max_token_length": "225",
    "ss_cache_latents": "True",
    "ss_seed": "42",
    "ss_noise_offset": "None",
    "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1,betas=(0.9, 0.99))",
    "ss_min_snr_gamma": "5.0",
    "ss_batch_size_per_device": "1",
    "ss_resolution": "(1024, 1024)",
    "ss_shuffle_caption": "True",
    "ss_enable_bucket": "True",
    "ss_min_bucket_reso": "512",
    "ss_max_bucket_reso": "2048",
    "ss_keep_tokens": "1",
    "ss_dataset_dirs": '{"10_zunda": {"n_repeats": 10, "img_count": 7}}',
    "ss_reg_dataset_dirs": '{"1_girl": {"n_repeats": 1, "img_count": 3}}',
    "ss_tag_frequency": '{"10_zunda": {"1girl": 7}}',
    "ss_bucket_info": "null",
    "ss_sd_model_name": "base.safetensors",
    "ss_session_id": "1",
}
BOTH = ("lora_unet_x.lora_down.weight", "lora_te1_x.lora_down.weight")


def test_sd_scripts(imported: Import) -> None:
    result = imported(zunda_safetensors=lora(SD_SCRIPTS, *BOTH))
    wanted = replace(
        Config(),
        family="sdxl", base_model="base.safetensors", prediction_type="epsilon", clip_skip=None, output_name="zunda",
        subsets=(Subset("10_zunda", repeats=10), Subset("1_girl", repeats=1, is_regularisation=True)),
        epochs=10, resolution=(1024, 1024), min_bucket=512, max_bucket=2048, shuffle_tags=True,
        keep_tokens=1, max_token_length=225, batch_size=1, mixed_precision="fp16", seed=42, learning_rate=1e-4,
        text_encoder_lr=5e-5, warmup_percent=10.0, schedule="cosine", optimizer="AdamW8bit",
        optimizer_args=("weight_decay=0.1", "betas=0.9,0.99"), train="both", min_snr_gamma=5.0, kind="LoCon", rank=16,
        alpha=8.0, conv_rank=4, conv_alpha=1.0,
    )  # fmt: skip
    assert {name: value for name, value in as_dict(result.config).items() if as_dict(wanted).get(name) != value} == {}
    assert not result.report.unsupported


def test_parts_are_told_by_the_layers(imported: Import) -> None:
    assert imported(a_safetensors=lora(SD_SCRIPTS, BOTH[0])).config.train == "unet"
    assert imported(b_safetensors=lora(SD_SCRIPTS, BOTH[1])).config.train == "text_encoder"


def test_a_run_that_was_ended_by_steps(imported: Import) -> None:
    config = imported(a_safetensors=lora({**SD_SCRIPTS, "ss_max_train_steps": "350"}, *BOTH)).config
    assert (config.max_steps, config.warmup_percent) == (350, 20.0)


def test_lycoris(imported: Import) -> None:
    arguments = {"conv_dim": "8", "conv_alpha": "1", "algo": "lokr", "factor": "8", "preset": "full", "dropout": None}
    metadata = {**SD_SCRIPTS, "ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps(arguments)}
    config = imported(a_safetensors=lora(metadata, *BOTH)).config
    assert (config.kind, config.conv_rank, config.lokr_factor) == ("LoKr", 8, 8)


def test_a_dataset_config_s_datasets(imported: Import) -> None:
    subset = {"img_count": 7, "num_repeats": 3, "image_dir": "zunda", "shuffle_caption": False, "keep_tokens": 2,
              "flip_aug": True, "class_tokens": None, "is_reg": False, "caption_prefix": None}  # fmt: skip
    dataset = {"is_dreambooth": True, "batch_size_per_device": 4, "resolution": [768, 768], "enable_bucket": True,
               "min_bucket_reso": 256, "max_bucket_reso": 1024, "tag_frequency": {}, "bucket_info": {},
               "subsets": [subset]}  # fmt: skip
    gone = ("ss_resolution", "ss_batch_size_per_device", "ss_shuffle_caption", "ss_dataset_dirs", "ss_reg_dataset_dirs")
    metadata = {key: value for key, value in SD_SCRIPTS.items() if key not in gone}
    config = imported(a_safetensors=lora({**metadata, "ss_datasets": json.dumps([dataset])}, *BOTH)).config
    assert (config.batch_size, config.resolution, config.repeats, config.flip) == (4, (768, 768), 3, True)
    assert (config.keep_tokens, config.shuffle_tags, config.subsets) == (2, False, (Subset("zunda"),))


@pytest.mark.parametrize(("version", "prediction"), [("sd_v2_v", "v"), ("sd_v1", "auto")])
def test_prediction_of_older_files(imported: Import, version: str, prediction: str) -> None:
    metadata = {**SD_SCRIPTS, "ss_base_model_version": version}
    del metadata["modelspec.prediction_type"]
    assert imported(a_safetensors=lora(metadata, *BOTH)).config.prediction_type == prediction


def test_our_own_hold_the_whole_config(imported: Import) -> None:
    config = replace(Config(), family="sd15", base_model="base.safetensors", rank=7, trigger_word="zunda",
                     subsets=(Subset("10_zunda"),), power=2.0)  # fmt: skip
    metadata = {**SD_SCRIPTS, "lora_trainer.config": json.dumps(as_dict(config))}
    result = imported(a_safetensors=lora(metadata, *BOTH))
    assert result.config == config
    assert any("rank = 7" in line.result for line in result.report.taken)


def test_our_own_of_a_later_version(imported: Import) -> None:
    metadata = {"lora_trainer.config": json.dumps({"rank": 7, "not_known": 1})}
    result = imported(a_safetensors=lora(metadata, *BOTH))
    assert result.config.rank == 7 and any("not_known" in str(line) for line in result.report.unsupported)


def test_a_lora_that_says_nothing(imported: Import) -> None:
    with pytest.raises(BadInput, match="says nothing of its training"):
        imported(a_safetensors=lora({"format": "pt"}, *BOTH))

"""sd-scripts' arguments become the config that trains the same, and the report says what became of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lora_trainer.config import Config, Subset, dump_toml, load_toml, problems
from lora_trainer.config.interchange import Imported, Source, from_sd_scripts

LORA = {"network_module": "networks.lora", "network_dim": 8}

# What sd-scripts' own parser and train_network.py do where an argument is left out (commit 48d368fa).
UNSAID: dict[str, Any] = {
    "prediction_type": "epsilon",
    "zero_terminal_snr": "off",
    "repeats": 1,
    "max_steps": 1600,
    "buckets": False,
    "caption_extension": ".caption",
    "shuffle_tags": False,
    "cache_latents": "off",
    "batch_size": 1,
    "mixed_precision": "no",
    "learning_rate": 2e-6,
    "schedule": "constant",
    "optimizer": "AdamW",
    "train": "both",
    "alpha": 1.0,
    "output_name": "last",
    "save_precision": "fp32",
    "preview_every_epochs": 0,
    "preview_at_start": False,
    "tagger": "none",
}


def taken(dataset: dict[str, Any] | None = None, family: str = "auto", **arguments: Any) -> Imported:
    return from_sd_scripts(Source({**LORA, **arguments}, dataset, family))


def reasons(result: Imported) -> str:
    return "\n".join(map(str, (*result.report.changed, *result.report.unsupported)))


@pytest.mark.parametrize(("setting", "value"), UNSAID.items())
def test_what_is_left_out_is_what_sd_scripts_does_then(setting: str, value: Any) -> None:
    result = taken()
    assert getattr(result.config, setting) == value
    said = [line for line in result.report.changed if line.result.startswith(f"{setting} = ")]
    assert (
        bool(said) == (value != getattr(Config(), setting) and setting != "shuffle_tags") or setting == "shuffle_tags"
    )


def test_defaults_of_buckets_and_huber_come_with_them() -> None:
    assert taken(enable_bucket=True).config.max_bucket == 1024
    assert taken(loss_type="huber").config.huber_schedule == "snr"
    assert taken(loss_type="l2").config.huber_schedule == Config().huber_schedule


def test_rank_and_alpha_are_sd_scripts_where_only_the_module_is_named() -> None:
    config = from_sd_scripts(Source({"network_module": "networks.lora"})).config
    assert (config.rank, config.alpha) == (4, 1.0)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"max_train_epochs": 5, "max_train_steps": 700}, {"epochs": 5, "max_steps": 0}),
        ({"max_train_steps": "700"}, {"max_steps": 700}),
        ({"resolution": "512,768"}, {"resolution": (512, 768)}),
        ({"resolution": 640}, {"resolution": (640, 640)}),
        ({"resolution": "512, 650"}, {"resolution": (512, 648)}),
        ({"enable_bucket": True, "min_bucket_reso": 300, "max_bucket_reso": 1000},
         {"min_bucket": 256, "max_bucket": 1024}),
        ({"enable_bucket": True, "bucket_reso_steps": 1}, {"bucket_step": 8}),
        ({"cache_latents": True}, {"cache_latents": "memory"}),
        ({"cache_latents": True, "cache_latents_to_disk": True}, {"cache_latents": "disk"}),
        ({"cache_latents": True, "random_crop": True}, {"cache_latents": "off", "random_crop": True}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 100, "max_train_steps": 1000}, {"warmup_percent": 10.0}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 0.05}, {"warmup_percent": 5.0}),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": "5%"}, {"warmup_percent": 5.0}),
        ({"lr_scheduler": "constant", "lr_warmup_steps": 10}, {"warmup_percent": 0.0, "schedule": "constant"}),
        ({"lr_scheduler": "adafactor"}, {"schedule": "constant"}),
        ({"optimizer_type": "adamw8bit"}, {"optimizer": "AdamW8bit"}),
        ({"optimizer_type": "prodigyplus.ProdigyPlusScheduleFree"}, {"optimizer": "ProdigyPlusScheduleFree"}),
        ({"optimizer_type": "AdamWScheduleFree"}, {"optimizer": "ScheduleFreeAdamW"}),
        ({"use_8bit_adam": True}, {"optimizer": "AdamW8bit"}),
        ({"use_lion_optimizer": True}, {"optimizer": "Lion"}),
        ({"network_train_unet_only": True}, {"train": "unet"}),
        ({"network_train_text_encoder_only": True}, {"train": "text_encoder"}),
        ({"unet_lr": 0, "text_encoder_lr": [1e-5]}, {"unet_lr": 0.0, "text_encoder_lr": 1e-5}),
        ({"text_encoder_lr": [1e-5, 2e-5]}, {"text_encoder_lr": 1e-5}),
        ({"unet_lr": 1e-4, "text_encoder_lr": 5e-5}, {"learning_rate": Config().learning_rate}),
        ({"fp8_base": True}, {"base_precision": "fp8"}),
        ({"fp8_base_unet": True}, {"base_precision": "fp8"}),
        ({"network_alpha": 0}, {"alpha": 8.0}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": None}, {"seed": -1}),
        ({"save_precision": "float"}, {"save_precision": "fp32"}),
        ({"save_state": True}, {"save_state": "every"}),
        ({"save_state_on_train_end": True}, {"save_state": "end"}),
        ({"max_train_epochs": 12, "save_n_epoch_ratio": 4}, {"save_every_epochs": 3}),
        ({"max_train_epochs": 12}, {"save_every_epochs": 12}),
        ({"alpha_mask": True}, {"masked_loss": "alpha"}),
        ({"masked_loss": True, "conditioning_data_dir": "masks"}, {"masked_loss": "folder", "mask_folder": "masks"}),
        ({"sample_every_n_epochs": 2, "sample_sampler": "k_euler_a"},
         {"preview_every_epochs": 2, "preview_sampler": "Euler a"}),
        ({"v2": True, "v_parameterization": True}, {"family": "sd2", "prediction_type": "v"}),
        ({"min_snr_gamma": 25}, {"min_snr_gamma": 20.0}),
        ({"max_token_length": None}, {"max_token_length": 75}),
    ],
)  # fmt: skip
def test_values_in_our_words(arguments: dict[str, Any], values: dict[str, Any]) -> None:
    config = taken(**arguments).config
    assert {name: getattr(config, name) for name in values} == values
    assert load_toml(dump_toml(config)) == config


@pytest.mark.parametrize(
    ("module", "arguments", "values"),
    [
        ("networks.lora", [], {"kind": "LoRA"}),
        ("networks.lora", ["conv_dim=4"], {"kind": "LoCon", "conv_rank": 4, "conv_alpha": 1.0}),
        ("networks.lora", ["conv_dim=4", "conv_alpha=2"], {"kind": "LoCon", "conv_alpha": 2.0}),
        ("lycoris.kohya", ["algo=lora", "preset=attn-mlp"], {"kind": "LoRA", "conv_rank": 0}),
        ("lycoris.kohya", ["algo=locon"], {"kind": "LoCon", "conv_rank": 8, "conv_alpha": 4.0}),
        ("lycoris.kohya", ["algo=loha", "conv_dim=4", "conv_alpha=1"], {"kind": "LoHa", "conv_rank": 4}),
        ("lycoris.kohya", ["algo=lokr", "factor=6", "preset=attn-mlp"], {"kind": "LoKr", "lokr_factor": 6}),
        ("lycoris.kohya", ["algo=locon", "dora_wd=True", "preset=attn-mlp"], {"kind": "DoRA"}),
        ("networks.lora", ["rank_dropout=0.1", "module_dropout=0.2"], {"rank_dropout": 0.1, "module_dropout": 0.2}),
        ("networks.lora", ["down_lr_weight=sine+0.5", "up_lr_weight=sine+0.5"], {"block_lr_weights": "sine+0.5"}),
        ("networks.lora", ["down_lr_weight=reverse_linear", "up_lr_weight=reverse_linear"],
         {"block_lr_weights": "reverse", "block_wise": True}),
        ("networks.lora", ["mid_lr_weight=0.5"], {"block_lr_weights": (1.0,) * 12 + (0.5,) + (1.0,) * 12}),
        ("networks.lora", [f"block_dims={','.join(['4'] * 25)}"],
         {"block_ranks": (4,) * 25, "block_alphas": (4.0,) * 25}),
    ],
)  # fmt: skip
def test_networks(module: str, arguments: list[str], values: dict[str, Any]) -> None:
    result = taken(network_module=module, network_alpha=4, network_args=arguments)
    assert {name: getattr(result.config, name) for name in values} == values, reasons(result)
    assert {problem.setting for problem in problems(result.config)} <= {"base_model", "subsets"}


def test_sdxl_counts_its_own_blocks() -> None:
    arguments = [f"block_dims={','.join(['1', *['4'] * 21, '1'])}", "down_lr_weight=0,0,0,0,1,1,1,1,1"]
    config = taken(family="sdxl", network_args=arguments).config
    assert config.block_ranks == (4,) * 21
    assert config.block_lr_weights == (0.0,) * 4 + (1.0,) * 17


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"network_module": "networks.dylora"}, "networks.dylora is not among the kinds"),
        ({"network_module": "lycoris.kohya", "network_args": ["algo=ia3"]}, "ia3 is not among the kinds"),
        ({"optimizer_type": "SGDNesterov"}, "is not among the optimizers"),
        ({"lr_scheduler": "inverse_sqrt"}, "lr_scheduler"),
        ({"loss_type": "l1"}, "loss_type"),
        ({"caption_extension": ".none"}, ".txt and .caption files only"),
        ({"masked_loss": True}, "so that nothing is"),
        ({"token_warmup_step": 100}, "all their tags"),
        ({"stop_text_encoder_training": 300}, "to the end"),
        ({"keep_tokens_separator": "|||"}, "not up to a separator"),
        ({"netwrok_dropout": 0.1}, '"network_dropout" is'),
        ({"network_args": ["loraplus_lr_ratio=4"]}, "at the same rate"),
        ({"max_train_epochs": "ten"}, "is not a number"),
        ({"min_snr_gamma": "nan"}, "is not a number"),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 100, "max_train_epochs": 3}, "how many pictures there are"),
        ({"output_name": "a/b"}, "contains a path"),
    ],
)
def test_what_cannot_be_taken_is_said(arguments: dict[str, Any], said: str) -> None:
    assert said in reasons(taken(**arguments))


def test_what_says_nothing_is_only_counted() -> None:
    idle: dict[str, Any] = {
        "flip_aug": False, "noise_offset": 0, "vae": "", "network_weights": None, "token_warmup_step": 0.0,
        "ip_noise_gamma": False,
        "caption_separator": ",", "dim_from_weights": False, "max_data_loader_n_workers": 8,
    }  # fmt: skip
    result = taken(**idle)
    assert set(idle) <= set(result.report.left)
    assert not result.report.unsupported


def test_what_has_no_effect_is_not_kept() -> None:
    result = taken(
        lr_scheduler="cosine", lr_scheduler_power=2.0, guidance_scale=3.5, clip_l="clip.safetensors", family="sd15"
    )
    assert (result.config.power, result.config.guidance, result.config.clip_l) == (1.0, 1.0, None)
    assert {"lr_scheduler_power", "guidance_scale", "clip_l"} <= set(result.report.left)


def test_a_warm_up_in_steps_counts_the_run_where_the_pictures_are() -> None:
    source = Source({**LORA, "lr_scheduler": "cosine", "lr_warmup_steps": 30, "max_train_epochs": 3})
    assert from_sd_scripts(source, lambda config: 300).config.warmup_percent == pytest.approx(10.0)


def test_the_family_has_its_own_defaults() -> None:
    flux = taken(family="flux", network_module="networks.lora_flux").config
    assert (flux.timestep_sampling, flux.flow_shift, flux.guidance) == ("sigma", 3.0, 3.5)
    assert (flux.prediction_type, flux.family) == ("auto", "flux")


def test_a_dataset_config() -> None:
    dataset = {
        "general": {"shuffle_caption": True, "keep_tokens": 1},
        "datasets": [
            {
                "resolution": 768,
                "batch_size": 4,
                "enable_bucket": True,
                "subsets": [
                    {"image_dir": "data/10_zunda", "num_repeats": 2, "caption_extension": ".txt"},
                    {
                        "image_dir": "reg",
                        "num_repeats": 1,
                        "is_reg": True,
                        "keep_tokens": 0,
                        "caption_extension": ".txt",
                    },
                ],
            }
        ],
    }
    config = taken(dataset).config
    assert (config.resolution, config.batch_size, config.buckets, config.shuffle_tags) == ((768, 768), 4, True, True)
    assert (config.keep_tokens, config.caption_extension) == (1, ".txt")
    assert config.subsets == (
        Subset("data/10_zunda", repeats=2),
        Subset("reg", is_regularisation=True, keep_tokens=0),
    )


def test_a_folder_s_name_says_nothing_where_the_dataset_config_does() -> None:
    dataset = {"datasets": [{"subsets": [{"image_dir": "C:\\data\\12_zunda"}]}]}
    assert taken(dataset).config.subsets[0].repeats == 1


def test_folders_of_repeats() -> None:
    config = taken(train_data_dir="img", reg_data_dir="reg").config
    assert config.subsets == (Subset("img"), Subset("reg", is_regularisation=True))


def test_a_dataset_config_alone_says_nothing_of_the_network() -> None:
    dataset = {"datasets": [{"resolution": 512, "subsets": [{"image_dir": "a"}]}]}
    config = from_sd_scripts(Source({}, dataset)).config
    assert (config.rank, config.learning_rate, config.schedule) == (32, 1e-4, "cosine_with_restarts")
    assert (config.batch_size, config.buckets, config.caption_extension) == (1, False, ".caption")


def test_datasets_of_different_sizes_are_one_here() -> None:
    tables = [{"resolution": side, "subsets": [{"image_dir": f"{side}"}]} for side in (512, 768)]
    result = taken({"datasets": tables})
    assert result.config.resolution == (512, 512) and len(result.config.subsets) == 2
    assert "dataset 2" in reasons(result)


def test_the_report_reads_as_json_and_as_lines() -> None:
    report = taken(learning_rate=1e-4, min_snr_gamma=5, vae="").report
    lines = "\n".join(report.lines())
    assert "  min_snr_gamma = 5 -> min_snr_gamma = 5.0" in lines and "Left at its default" in lines
    facts = json.loads(json.dumps(report.as_dict()))
    assert set(facts) == {"taken", "changed", "unsupported", "left"}
    assert {"source": "learning_rate = 0.0001", "result": "learning_rate = 0.0001", "reason": ""} in facts["taken"]

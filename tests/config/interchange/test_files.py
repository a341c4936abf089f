"""Files of many programs are known by their content; what cannot be read is said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.config import BadInput, Config, Subset, dump_toml, load_toml
from lora_trainer.config.interchange import import_files
from lora_trainer.config.interchange.files import KNOWN
from tests.config.interchange.conftest import Import

FLAT = 'pretrained_model_name_or_path = "base.safetensors"\nnetwork_module = "networks.lora"\nnetwork_dim = 16\n'
SECTIONS = (
    '\ufeff# 设置\n[model_arguments]\npretrained_model_name_or_path = "base.safetensors"\n[network]\nnetwork_dim = 16\n'
)
DATASET = (
    '[[datasets]]\nresolution = 640\nbatch_size = 3\n  [[datasets.subsets]]\n  image_dir = "img"\n  num_repeats = 5\n'
)
GUI: dict[str, Any] = {
    "LoRA_type": "Standard",
    "LyCORIS_preset": "full",
    "additional_parameters": "",
    "bucket_reso_steps": 64.0,
    "conv_alpha": 1,
    "conv_dim": 1,
    "enable_bucket": True,
    "epoch": 3,
    "keep_tokens": "0",
    "learning_rate": "0.0001",
    "lr_scheduler": "cosine_with_restarts",
    "lr_scheduler_num_cycles": "",
    "lr_warmup": "10",
    "max_resolution": "512,640",
    "max_train_epochs": "",
    "max_train_steps": "",
    "multires_noise_iterations": 8,
    "network_alpha": 4,
    "network_dim": 8,
    "noise_offset": "0.05",
    "noise_offset_type": "Original",
    "optimizer": "Prodigy",
    "optimizer_args": '"d0=1e-5" "decouple=True"',
    "sdxl": True,
    "sdxl_cache_text_encoder_outputs": True,
    "seed": "",
    "text_encoder_lr": 0.0,
    "train_data_dir": "./img",
    "unet_lr": 1.0,
    "xformers": "xformers",
}


@pytest.mark.parametrize("text", [FLAT, SECTIONS, FLAT.encode("utf-16"), "\ufeff" + FLAT])
def test_toml_in_every_form(imported: Import, text: str | bytes) -> None:
    config = imported(train_toml=text).config
    assert (config.base_model, config.rank) == ("base.safetensors", 16)


def test_a_training_and_a_dataset_config_in_either_order(imported: Import) -> None:
    first, second = imported(a_toml=FLAT, b_toml=DATASET), imported(b_toml=DATASET, a_toml=FLAT)
    assert first.config == second.config
    assert first.config.resolution == (640, 640) and first.config.batch_size == 3
    assert first.config.subsets == (Subset("img"),) and first.config.repeats == 5


def test_a_dataset_config_that_is_named(imported: Import, tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_text(DATASET, encoding="utf-8")
    assert imported(a_toml=FLAT + "dataset_config = 'C:\\somewhere\\dataset.toml'\n").config.batch_size == 3


def test_a_dataset_config_that_is_missing(imported: Import) -> None:
    result = imported(a_toml=FLAT + 'dataset_config = "gone.toml"\n')
    assert any("give that file together" in line.reason for line in result.report.unsupported)
    assert "dataset_config" not in result.report.left


def test_kohya_ss_s_gui(imported: Import) -> None:
    config = imported(gui_json=GUI).config
    wanted: dict[str, Any] = {
        "family": "sdxl",
        "kind": "LoRA",
        "epochs": 3,
        "max_steps": 0,
        "restarts": 3,  # the GUI passes its epochs where the field is empty
        "warmup_percent": 10.0,
        "resolution": (512, 640),
        "train": "unet",  # the text encoder's rate is 0
        "cache_text": "memory",
        "noise_offset": 0.05,
        "multires_iterations": 0,
        "optimizer": "Prodigy",
        "optimizer_args": ("d0=1e-5", "decouple=True"),
        "keep_tokens": 0,
        "seed": -1,
        "subsets": (Subset("./img"),),
    }
    assert {name: getattr(config, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("Kohya LoCon", {"kind": "LoCon", "conv_rank": 4}),
        ("LyCORIS/LoHa", {"kind": "LoHa", "conv_rank": 4}),
        ("LyCORIS/LoKr", {"kind": "LoKr", "lokr_factor": 6}),
        ("LyCORIS/iA3", {"kind": "LoRA"}),
    ],
)
def test_the_gui_s_types_of_lora(imported: Import, kind: str, wanted: dict[str, Any]) -> None:
    result = imported(gui_json={**GUI, "LoRA_type": kind, "conv_dim": 4, "factor": 6})
    assert {name: getattr(result.config, name) for name in wanted} == wanted
    assert any(kind in line.source for line in (*result.report.taken, *result.report.unsupported))


def test_the_gui_s_further_parameters(imported: Import) -> None:
    more = '--lr_scheduler_type "CosineAnnealingLR" --lr_scheduler_args "T_max=1000" --min_snr_gamma=5'
    config = imported(gui_json={**GUI, "additional_parameters": more}).config
    assert (config.schedule, config.min_snr_gamma) == ("cosine", 5.0)


def test_the_gui_s_fields_of_other_kinds_are_not_called_unsupported(imported: Import) -> None:
    result = imported(gui_json={**GUI, "factor": -1, "unit": 1, "train_blocks": "all", "guidance_scale": 3.5})
    assert not result.report.unsupported
    assert {"conv_dim", "factor", "unit", "guidance_scale"} <= set(result.report.left)


def test_lora_scripts(imported: Import) -> None:
    text = FLAT.replace('"networks.lora"', '"lycoris.kohya"') + (
        'model_train_type = "sdxl-lora"\nlycoris_algo = "lokr"\nlokr_factor = 4\nconv_dim = 4\nconv_alpha = 1\n'
        'lr_restart_cycles = 2\nlr_scheduler = "cosine_with_restarts"\noptimizer_type = "Prodigy"\n'
        'prodigy_d_coef = "2.0"\npositive_prompts = "1girl"\nnegative_prompts = "bad"\nsample_width = 512\n'
        "sample_height = 768\nsample_every_n_epochs = 1\n"
    )
    config = imported(ui_toml=text).config
    assert (config.family, config.kind, config.lokr_factor, config.conv_rank) == ("sdxl", "LoKr", 4, 4)
    assert (config.restarts, config.optimizer_args) == (2, ("d_coef=2.0",))
    assert (config.preview_prompts, config.negative_prompt, config.preview_size) == (("1girl",), "bad", (512, 768))


@pytest.mark.parametrize("nested", [True, False])
def test_aws(imported: Import, nested: bool) -> None:
    parameters: dict[str, Any] = {"output_name": "zunda", "save_every_n_epochs": 5, "max_train_epochs": 100}
    if nested:
        parameters = {"saving_arguments": parameters, "training_arguments": {"max_train_epochs": 100}}
    training = {
        "training_instance_type": "ml.g5.2xlarge",
        "model": "m.safetensors",
        "dataset": "100_demo",
        "fm_type": "sd_xl",
    }
    thresholds = {"general_threshold": "0.7", "character_threshold": "0.6"}
    body = {"training_params": training, "config_params": parameters, "enable_wd14_tagger": True,
            "wd14_tagger_params": thresholds}  # fmt: skip
    config = imported(job_json={"lora_train_type": "kohya", "params": body}).config
    assert (config.family, config.base_model, config.subsets) == ("sdxl", "m.safetensors", (Subset("100_demo"),))
    assert (config.output_name, config.epochs, config.save_every_epochs) == ("zunda", 100, 5)
    assert (config.tagger, config.tag_threshold, config.character_threshold) == ("wd-v3", 0.7, 0.6)
    assert config.learning_rate == Config().learning_rate


def test_presets_are_listed_and_chosen(imported: Import) -> None:
    one = {"network_dim": 16, "learning_rate": 1e-4, "output_dir": None, "max_train_steps": 1600}
    presets = {"train_network": {"small": one, "large": {**one, "network_dim": 64}}, "train_db": {"db": one}}
    with pytest.raises(BadInput, match="--preset: train_network/small, train_network/large, train_db/db"):
        imported(presets_json=presets)
    assert imported("large", presets_json=presets).config.rank == 64
    assert imported("train_network/small", presets_json=presets).config.rank == 16
    with pytest.raises(BadInput, match="has no preset 'huge'"):
        imported("huge", presets_json=presets)


def test_a_preset_goes_with_a_dataset_config(imported: Import) -> None:
    one = {"network_dim": 16, "learning_rate": 1e-4, "network_alpha": 1}
    config = imported("b", presets_json={"a": one, "b": {**one, "network_dim": 4}}, d_toml=DATASET).config
    assert (config.rank, config.resolution) == (4, (640, 640))
    with pytest.raises(BadInput, match="holds no presets"):
        imported("b", d_toml=DATASET)


def test_presets_side_by_side(imported: Import) -> None:
    one = {"network_dim": 16, "learning_rate": 1e-4, "network_alpha": 1}
    with pytest.raises(BadInput, match="holds several presets"):
        imported(presets_json={"a": one, "b": one})


def test_preview_prompts_of_each_form(imported: Import, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(
        "# a comment\na cat --n bad --w 512 --h 768 --s 30 --l 7.5 --d 1\n\na dog\n", encoding="utf-8"
    )
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a cat", "scale": 7.5}, "a dog"]), encoding="utf-8")
    (tmp_path / "p.toml").write_text("[prompt]\nscale = 7.5\n[[prompt.subset]]\nprompt = 'a cat'\n", encoding="utf-8")
    text = FLAT + "sample_every_n_epochs = 1\nsample_prompts = "
    config = imported(a_toml=text + '"p.txt"').config
    assert (config.preview_prompts, config.negative_prompt, config.preview_size) == (
        ("a cat", "a dog"),
        "bad",
        (512, 768),
    )
    assert (config.preview_steps, config.preview_cfg, config.preview_seed) == (30, 7.5, 1)
    assert imported(b_toml=text + '"p.json"').config.preview_prompts == ("a cat", "a dog")
    assert imported(c_toml=text + '"p.toml"').config.preview_cfg == 7.5
    gone = imported(d_toml=text + '"gone.txt"')
    assert any("no such file" in line.reason for line in gone.report.unsupported)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "100_demo").mkdir()
    assert import_files([tmp_path]).config.subsets == (Subset(str(tmp_path)),)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a_toml", "", "is empty"),
        ("a_toml", "x = \n", "line 1, column 5 is not TOML"),
        ("a_json", "{\n  1}", "line 2, column 3 is not JSON"),
        ("a_json", "[1]", "holds no table"),
        ("a_bin", bytes(range(256)), "is not text"),
        ("a_yaml", "job: extension\nname: x\n", "is neither TOML nor JSON nor a launch line"),
        ("a_txt", "hello --world", "has no argument"),
        ("a_toml", "[model]\nfamily = 'sd15'\n", "is a config of this trainer already"),
        ("a_toml", "answer = 42\n", "has no argument of sd-scripts in it"),
        ("a_safetensors", (20).to_bytes(8, "little") + b"{broken", "is damaged"),
        ("a_bat", "train_network.py ^\n --train_data_dir=D:\\学習 --network_dim=8".encode("cp932"), "is not in UTF-8"),
    ],
)
def test_what_cannot_be_read(imported: Import, name: str, content: Any, said: str) -> None:
    with pytest.raises(BadInput) as error:
        imported(**{name: content})
    assert said in str(error.value) and len(error.value.problems) == 1
    assert error.value.problems[0].remedy.endswith(".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 3000) | st.floats() | st.text("a1.,=%x -", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "image_dir", "subsets"]), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON, max_size=8))
def test_whatever_stands_in_a_file_is_reported_or_refused(tmp_path_factory: Any, table: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("files") / "a.json"
    path.write_text(json.dumps(table), encoding="utf-8")
    try:
        config = import_files([path]).config
    except BadInput:
        return
    assert load_toml(dump_toml(config)) == config


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        import_files([tmp_path / "gone.toml"])


def test_a_comment_may_be_in_any_encoding(imported: Import) -> None:
    text = "@rem 学習用\r\naccelerate launch train_network.py ^\r\n --network_dim=8 --network_module=networks.lora"
    assert imported(a_bat=text.encode("cp932")).config.rank == 8

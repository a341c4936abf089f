"""`export` writes what sd-scripts is started with, settles what base and pictures decide, and says how to start it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.config import Config, load_toml
from lora_trainer.config.toml_file import parse_toml
from tests.commands.conftest import Command, write_config

ConfigOf = Callable[..., Config]


def test_files_beside_each_other(command: Command, config_of: ConfigOf, tmp_path: Path) -> None:
    config = replace(config_of(), warmup_percent=10.0, preview_prompts=("a cat",), preview_every_epochs=1)
    said = command("export", write_config(config, tmp_path), "-o", tmp_path / "out")
    assert (said.code, said.errors) == (0, [])
    name = config.output_name or config.dataset_name
    training = parse_toml((tmp_path / "out" / f"{name}.toml").read_text(encoding="utf-8"))
    dataset = parse_toml(Path(training["dataset_config"]).read_text(encoding="utf-8"))
    assert Path(training["pretrained_model_name_or_path"]).is_absolute()
    assert isinstance(training["lr_warmup_steps"], int) and training["shuffle_caption"]  # for they are tags
    assert all(Path(entry["image_dir"]).is_dir() for entry in dataset["datasets"][0]["subsets"])
    assert Path(training["sample_prompts"]).read_text(encoding="utf-8").startswith("a cat --w ")
    assert said.out[-1].startswith("In sd-scripts' folder: accelerate launch train_network.py --config_file ")


def test_it_comes_back(command: Command, config_of: ConfigOf, tmp_path: Path) -> None:
    config = replace(config_of(), rank=7, alpha=3.0, min_snr_gamma=5.0)
    assert command("export", write_config(config, tmp_path), "-o", tmp_path / "sd.toml").code == 0
    assert command("import", tmp_path / "sd.toml", "-o", tmp_path / "back.toml").code == 0
    result = load_toml(tmp_path / "back.toml")
    assert (result.rank, result.alpha, result.min_snr_gamma) == (7, 3.0, 5.0)
    assert [Path(part.folder).name for part in result.subsets] == [Path(part.folder).name for part in config.subsets]


def test_without_base_and_pictures_what_they_decide_is_guessed(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("base_model = 'gone'\ndataset_name = 'a'\n[[subsets]]\nfolder = 'gone'\n", encoding="utf-8")
    said = command("export", path, "-o", tmp_path / "out", "--json")
    facts = json.loads(said.out[0])
    assert said.code == 0 and len(facts["files"]) == 2 and any("gone" in line for line in facts["guessed"])
    assert any("set family" in line["reason"] for line in facts["changed"])


@pytest.mark.parametrize("arguments", [(), ("--force",)])
def test_files_are_replaced_only_when_asked(
    command: Command, config_of: ConfigOf, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    config = write_config(config_of(), tmp_path)
    (tmp_path / "sd_dataset.toml").write_text("mine", encoding="utf-8")
    said = command("export", config, "-o", tmp_path / "sd.toml", *arguments)
    assert said.code == (0 if arguments else 2)
    assert ((tmp_path / "sd_dataset.toml").read_text(encoding="utf-8") == "mine") is not bool(arguments)
    assert (tmp_path / "sd.toml").exists() is bool(arguments)


def test_a_config_with_problems_is_refused(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("rank = 0\n", encoding="utf-8")
    said = command("export", path, "-o", tmp_path / "out")
    assert said.code == 2 and any("rank" in line for line in said.errors) and not (tmp_path / "out").exists()

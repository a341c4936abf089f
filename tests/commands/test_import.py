"""`import` writes a config that can be checked, says what became of each value, and replaces nothing unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lora_trainer.config import Subset, load_toml
from tests.commands.conftest import Command, contents

TRAINING = (
    'pretrained_model_name_or_path = "gone.safetensors"\noutput_name = "zunda"\nnetwork_module = "networks.lora"\n'
    "network_dim = 8\nlearning_rate = 1e-4\nresolution = 64\nmax_train_epochs = 5\nfp8_base = true\nflip_aug = false\n"
    'lr_scheduler = "cosine"\nlr_warmup_steps = 2\n'
)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    folder = tmp_path / "img" / "4_zunda"
    folder.mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
    path = tmp_path / "train.toml"
    path.write_text(f"{TRAINING}train_data_dir = {json.dumps(str(tmp_path / 'img'))}\n", encoding="utf-8")
    return path


def test_a_config_is_written_and_reported(command: Command, training: Path, tmp_path: Path) -> None:
    output = tmp_path / "config.toml"
    said = command("import", training, "-o", output)
    assert (said.code, said.errors) == (0, [])
    config = load_toml(output)
    assert (config.rank, config.output_name, config.subsets) == (8, "zunda", (Subset(str(tmp_path / "img")),))
    assert config.warmup_percent == pytest.approx(5.0)  # 2 of 2 pictures x 4 repeats x 5 epochs
    assert "  network_dim = 8 -> rank = 8" in said.out
    assert any(line.startswith("  fp8_base = true") for line in said.out)
    assert any(line.startswith("Left at its default") and "flip_aug" in line for line in said.out)
    assert said.out[-1].startswith(f"Written to {output}")


def test_the_report_as_json(command: Command, training: Path, tmp_path: Path) -> None:
    said = command("import", training, "-o", tmp_path / "config.toml", "--json")
    (line,) = said.out
    facts = json.loads(line)
    assert facts["config"]["rank"] == 8 and facts["left"]
    assert {"taken", "changed", "unsupported"} <= facts.keys()


def test_nothing_is_replaced_unasked(command: Command, training: Path, tmp_path: Path) -> None:
    output = tmp_path / "config.toml"
    output.write_text("mine", encoding="utf-8")
    said = command("import", training, "-o", output)
    assert said.code == 2 and "is there already" in said.errors[0] and output.read_text(encoding="utf-8") == "mine"
    assert command("import", training, "-o", output, "--force").code == 0
    assert load_toml(output).rank == 8


def test_what_cannot_be_read_leaves_nothing_behind(command: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.toml").write_text("", encoding="utf-8")
    before = contents(tmp_path)
    said = command("import", tmp_path / "empty.toml", "-o", tmp_path / "config.toml")
    assert (said.code, said.out, len(said.errors)) == (2, [], 1)
    assert contents(tmp_path) == before


def test_presets_are_listed(command: Command, tmp_path: Path) -> None:
    one = {"network_dim": 8, "learning_rate": 1e-4, "network_alpha": 1}
    (tmp_path / "presets.json").write_text(json.dumps({"train": {"a": one, "b": one}}), encoding="utf-8")
    said = command("import", tmp_path / "presets.json", "-o", tmp_path / "config.toml")
    assert said.code == 2 and "--preset: train/a, train/b" in said.errors[0]
    assert command("import", tmp_path / "presets.json", "-o", tmp_path / "config.toml", "--preset", "b").code == 0


def test_what_is_imported_can_be_checked(command: Command, training: Path, base: Path, tmp_path: Path) -> None:
    output = tmp_path / "config.toml"
    assert command("import", training, "-o", output).code == 0
    missing = command("check", output)
    assert missing.code == 2 and "gone.safetensors" in missing.errors[0]
    found = command("check", output, "--set", f"base_model={base}", f"output_folder={tmp_path}")
    assert (found.code, found.errors) == (0, [])
    assert "steps: 40" in found.out

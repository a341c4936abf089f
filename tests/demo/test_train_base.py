from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_trainer.demo import train_base

SECOND = 1 / 60  # in minutes


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAE_PICTURES", "SPRITES", "MEASURED"):
        monkeypatch.setattr(train_base, name, 16)
    monkeypatch.setattr(train_base, "POINT_STEPS", 1)


def test_all_stages_make_a_base_and_its_report(tmp_path: Path) -> None:
    train_base.train(tmp_path, 10 * SECOND)
    assert len(load_file(tmp_path / "base.safetensors")) == 686 + 248 + 197
    report = json.loads((tmp_path / "base_training.json").read_text(encoding="utf-8"))
    assert set(report["stages"]) == {"vae", "text", "unet", "decoder"}
    assert all(stage["steps"] == len(stage["curve"]) > 0 for stage in report["stages"].values())
    assert set(report["loss_at_500"]) == {"own", "shuffled", "empty"}
    with Image.open(tmp_path / "base_training.png") as curves:
        assert curves.size == (4 * 360, 240)


def test_a_stage_goes_on_where_it_stopped(tmp_path: Path) -> None:
    weight = torch.nn.Linear(1, 1, bias=False)

    def stage() -> train_base.Stage:
        return train_base.Stage(
            "one", {"weight": weight}, {"weight": 0.1}, lambda step: (weight.weight - 3).square().sum()
        )

    first = stage()
    first.train(tmp_path, 0.2 * SECOND)
    reached = weight.weight.detach().clone()
    torch.nn.init.zeros_(weight.weight)
    second = stage()
    second.resume(tmp_path)
    assert torch.equal(weight.weight, reached)
    assert (second.step, second.curve) == (first.step, first.curve)
    second.train(tmp_path, 0.4 * SECOND)
    assert second.step > first.step

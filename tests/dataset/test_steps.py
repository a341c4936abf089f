"""The steps of a run, from its pictures alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from lora_trainer.config import Config, Subset
from lora_trainer.dataset.steps import count_steps


def test_pictures_times_repeats_in_batches_times_epochs(tmp_path: Path) -> None:
    folder = tmp_path / "3_zunda"
    folder.mkdir()
    for number, size in enumerate([(64, 64), (64, 64), (128, 64)]):
        Image.new("RGB", size, (number, 0, 0)).save(folder / f"{number}.png")
    config = Config(
        resolution=(512, 512), batch_size=4, epochs=5, subsets=(Subset(str(tmp_path)),), bucket_no_upscale=True
    )
    assert count_steps(config) == 5 * (2 + 1)  # 6 squares and 3 wide ones, in batches of 4
    assert count_steps(replace(config, gradient_accumulation=2)) == 5 * 2
    assert count_steps(replace(config, max_steps=77)) == 77


def test_none_where_the_pictures_are_not_there(tmp_path: Path) -> None:
    assert count_steps(Config(subsets=(Subset(str(tmp_path / "gone")),))) is None
    assert count_steps(Config()) is None

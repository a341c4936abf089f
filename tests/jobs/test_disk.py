from __future__ import annotations

import pytest

from lora_trainer.config import Config
from lora_trainer.jobs.disk import disk_mb

LORAS = {  # bytes of the numbers in files of rank 16 that sd-scripts 48d368fa wrote for full-size checkpoints
    ("sd15", "both"): 16 * (423_936 + 165_888) * 2,
    ("sdxl", "unet"): 16 * 2_659_840 * 2,
}
# Widths of Flux's Linear layers, inputs and outputs: those of a double block's stream, and of a single block.
STREAM = [(3072, 18432), (3072, 9216), (3072, 3072), (3072, 12288), (12288, 3072)]
SINGLE = [(3072, 9216), (3072, 21504), (15360, 3072)]


@pytest.mark.parametrize(("family", "train"), LORAS)
def test_a_run_takes_its_loras_and_three_numbers_for_each_of_theirs(family: str, train: str) -> None:
    config = Config(rank=16, epochs=10, save_every_epochs=2, train=train, alpha=8.0)
    lora = LORAS[family, train]
    assert disk_mb(config, family, 700) == pytest.approx((5 * lora + 6 * lora) / 2**20)


def test_saves_within_epochs_count_and_old_ones_that_are_deleted_do_not() -> None:
    whole = disk_mb(Config(rank=8, epochs=10, save_state="off"), "sd15", 1000)
    assert whole
    assert disk_mb(Config(rank=8, epochs=10, save_every_steps=100, save_state="off"), "sd15", 1000) == 2 * whole
    assert disk_mb(Config(rank=8, epochs=10, keep_last=1, save_state="off"), "sd15", 1000) == whole / 10


@pytest.mark.parametrize("config", [Config(kind="LoHa"), Config(block_wise=True)])
def test_what_cannot_be_known_beforehand_is_not_said(config: Config) -> None:
    assert disk_mb(config, "sd15", 700) is None
    assert disk_mb(Config(), "sd2", 700) is None


@pytest.mark.parametrize(("double", "single"), [("all", "all"), ("0-4,8", "none"), ("none", "37")])
def test_fluxs_blocks_count_as_far_as_they_are_chosen(double: str, single: str) -> None:
    counts = {"all": 1, "none": 0, "0-4,8": 6, "37": 1}
    doubles, singles = (19 if double == "all" else counts[double]), (38 if single == "all" else counts[single])
    numbers = doubles * 2 * sum(map(sum, STREAM)) + singles * sum(map(sum, SINGLE))
    config = Config(rank=16, epochs=1, save_state="off", double_blocks=double, single_blocks=single)
    assert disk_mb(config, "flux", 700) == pytest.approx(16 * numbers * 2 / 2**20)
    assert disk_mb(Config(double_blocks="some"), "flux", 700) is None

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_trainer.config import Config, Subset
from lora_trainer.dataset.buckets import buckets_for, place
from lora_trainer.dataset.folders import find_pictures
from lora_trainer.dataset.summary import bucket_info, dataset_dirs, tag_frequency

Draw = Callable[..., Path]


@pytest.fixture
def config(draw: Draw, configure: Callable[..., Config], tmp_path: Path) -> Config:
    draw("data/3_kuro/a.png", (64, 64), "1girl, Smile, solo")
    draw("data/3_kuro/b.png", (200, 64), "1girl, smile, hat")
    draw("other/3_kuro/c.png", (64, 64), "1girl")
    draw("1_girl/d.png", (64, 64))
    folders = ("data", "other", Subset(str(tmp_path / "1_girl"), is_regularisation=True))
    return configure(*folders, min_bucket=32, bucket_step=32)


def test_tags_are_counted_by_folder(config: Config) -> None:
    assert tag_frequency(find_pictures(config).pictures) == {
        "3_kuro": {"1girl": 3, "smile": 2, "solo": 1, "hat": 1},
        "1_girl": {"girl": 1},
    }


def test_folders_are_told_with_repeats_and_pictures(config: Config) -> None:
    pictures = find_pictures(config).pictures
    assert dataset_dirs(pictures) == {
        "3_kuro": {"n_repeats": 3, "img_count": 2},
        "3_kuro (2)": {"n_repeats": 3, "img_count": 1},
    }
    assert dataset_dirs(pictures, regularisation=True) == {"1_girl": {"n_repeats": 1, "img_count": 1}}


def test_buckets_are_told_with_repeats_and_error(config: Config) -> None:
    pictures = find_pictures(config).pictures
    placements = [place(picture.size, buckets_for(config)) for picture in pictures]
    info = bucket_info(pictures, placements)
    assert info == json.loads(json.dumps(info))
    assert info["buckets"] == {
        "0": {"resolution": [64, 64], "count": 3 + 3 + 9},
        "1": {"resolution": [96, 32], "count": 3},
    }
    assert info["mean_img_ar_error"] == pytest.approx((200 / 64 - 96 / 32) / 4)  # of four pictures, one does not fit

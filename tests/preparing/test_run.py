from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import BadInput, Config
from lora_trainer.dataset.folders import find_pictures
from lora_trainer.dataset.store import Dataset
from lora_trainer.jobs.stops import Stop
from lora_trainer.packages import environment_for_child
from lora_trainer.preparing.run import Prepared, prepare, preview
from tests.tagging.onnx_files import logit, selected_tags, tag_model

TAGGER = "wd-vit-v3"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger that is sure of green hair and solo, and of a blue or a red theme where that is what it sees."""
    parent = tmp_path_factory.mktemp("models")
    folder = parent / "taggers" / TAGGER
    folder.mkdir(parents=True)
    shutil.copyfile(selected_tags(), folder / "selected_tags.csv")
    names = [line.split(",")[1] for line in selected_tags().read_text(encoding="utf-8").splitlines()[1:]]
    biases = np.full(len(names), -9.0)
    biases[[names.index("green_hair"), names.index("solo")]] = logit(0.9), logit(0.8)
    whole = {(row, column, 0): 1 / 16 / 255 * 18 for row in range(4) for column in range(4)}  # blue comes first
    red = {(row, column, 2): weight for (row, column, _), weight in whole.items()}
    tag_model(folder / "model.onnx", 448, biases, {names.index("blue_theme"): whole, names.index("red_theme"): red})
    return parent


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A blue picture with a caption, and a red one without, each with a white stripe at its left."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, colour in (("a", "blue"), ("b", "red")):
        picture = Image.new("RGB", (300, 200), colour)
        picture.paste("white", (0, 0, 60, 200))
        picture.save(folder / f"{name}.png")
    (folder / "a.txt").write_text("mascot, green hair\nkept line\n", encoding="utf-8")
    return folder


def config(tagger: str = "none", **values: Any) -> Config:
    return Config(tagger=tagger, dataset_name="zdm", **values)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
    return image


def captions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*/*.txt"))}


def test_the_whole_way(source: Path, models: Path, tmp_path: Path) -> None:
    chosen = config(crop="centre", crop_size=(128, 128), tagger=TAGGER, trigger_word="zdm", existing_captions="append")
    folder = tmp_path / "sets" / "zdm"
    done = prepare(chosen, [source], folder, models, unwanted=["green_hair"])
    assert (done.pictures, done.added, done.around, done.tagged) == (2, 2, {"centre": 2}, 2)
    assert captions(folder) == {"a.txt": "zdm, mascot, blue theme, solo\nkept line\n", "b.txt": "zdm, red theme, solo"}
    assert opened(folder / "10_zdm" / "a.png").size == (128, 128)
    assert (folder / "originals" / "a.png").read_bytes() == (source / "a.png").read_bytes()
    assert (source / "a.txt").read_text(encoding="utf-8") == "mascot, green hair\nkept line\n"


def test_what_it_makes_can_be_trained_on(source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    prepare(config(crop="centre", crop_size=(64, 64), tagger=TAGGER, trigger_word="zdm"), [source], folder, models)
    from lora_trainer.config import Subset

    found = find_pictures(Config(family="sd15", subsets=(Subset(str(folder)),)).for_family("sd15"))
    assert [(picture.size, picture.subset.repeats) for picture in found.pictures] == [((64, 64), 10)] * 2
    assert not found.left_out and not found.notices


def test_done_again_it_changes_nothing(source: Path, models: Path, tmp_path: Path) -> None:
    chosen, folder = config(crop="centre", crop_size=(64, 64), tagger=TAGGER), tmp_path / "zdm"
    prepare(chosen, [source], folder, models)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*") if path.suffix in (".png", ".txt")}
    again = prepare(chosen, [source], folder, models)
    assert (again.added, again.already, again.around, again.tagged) == (0, 2, {}, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_size_is_cut_from_the_original(source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    prepare(config(crop="centre", crop_size=(64, 64)), [source], folder, models)
    done = prepare(config(crop="centre", crop_size=(296, 200)), [], folder, models)
    assert done.around == {"centre": 2}
    cut = np.asarray(opened(folder / "10_zdm" / "b.png"))
    assert np.array_equal(cut, np.asarray(opened(source / "b.png"))[:, 2:298])


def test_what_was_cut_stays_so_unless_it_is_to_be_whole_again(source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    prepare(config(crop="centre", crop_size=(64, 64)), [source], folder, models)
    assert not prepare(config(), [], folder, models).around
    assert opened(folder / "10_zdm" / "b.png").size == (64, 64)
    assert prepare(config(), [], folder, models, uncut=True).around == {"nothing": 2}
    whole = opened(folder / "10_zdm" / "b.png")
    assert np.array_equal(np.asarray(whole), np.asarray(opened(source / "b.png")))
    assert not prepare(config(), [], folder, models, uncut=True).around


def test_what_is_enlarged_is_said_or_is_not_enlarged(source: Path, models: Path, tmp_path: Path) -> None:
    wanted = config(crop="centre", crop_size=(512, 512))
    done = prepare(wanted, [source], tmp_path / "large", models)
    assert done.enlarged == ["a.png", "b.png"]
    assert opened(tmp_path / "large" / "10_large" / "a.png").size == (512, 512)
    kept = prepare(
        config(crop="centre", crop_size=(512, 512), bucket_no_upscale=True), [source], tmp_path / "own", models
    )
    assert not kept.enlarged
    assert opened(tmp_path / "own" / "10_own" / "a.png").size == (200, 200)


def test_transparency_is_kept_through_a_cut_where_asked(models: Path, tmp_path: Path) -> None:
    picture = Image.new("RGBA", (100, 80), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 50, 80))
    picture.save(tmp_path / "half.png")
    for background, mode in (("keep", "RGBA"), ("black", "RGB")):
        folder = tmp_path / background
        prepare(
            config(crop="centre", crop_size=(80, 80), background=background), [tmp_path / "half.png"], folder, models
        )
        cut = opened(folder / f"10_{background}" / "half.png")
        assert cut.mode == mode
        assert cut.convert("RGBA").getpixel((5, 5)) == ((255, 255, 255, 0) if mode == "RGBA" else (0, 0, 0, 255))
        assert cut.convert("RGB").getpixel((75, 5)) == (255, 0, 0)


def test_undo_takes_the_tagging_back_at_once(source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    prepare(config(tagger=TAGGER, existing_captions="replace"), [source], folder, models)
    with Dataset.open(folder) as dataset:
        step = dataset.undo()
        assert step and (step.what, step.count) == (f"tagged with {TAGGER}", 2)
    assert captions(folder)["a.txt"] == "mascot, green hair\nkept line\n"


def test_a_missing_tagger_is_told_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInput, match="selected_tags.csv"):
        prepare(config(tagger="wd-moat-v2"), [source], tmp_path / "zdm", tmp_path / "none")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stop_leaves_the_rest_for_the_next_time(source: Path, models: Path, tmp_path: Path) -> None:
    stop, chosen = Stop(), config(crop="centre", crop_size=(64, 64), tagger=TAGGER)

    def at_the_first_cut(kind: str, /, **facts: object) -> None:
        if facts.get("name") == "cutting":
            stop.ask()

    first = prepare(chosen, [source], tmp_path / "zdm", models, report=at_the_first_cut, stop=stop)
    assert first.stopped and first.around == {"centre": 1} and first.tagged == 0
    rest = prepare(chosen, [], tmp_path / "zdm", models)
    assert rest.around == {"centre": 1} and rest.tagged == 1  # the other has its own caption


def test_a_stop_during_the_import_leaves_no_dataset(source: Path, models: Path, tmp_path: Path) -> None:
    stop = Stop()
    stop.ask()
    done = prepare(config(crop="centre"), [source], tmp_path / "zdm", models, stop=stop)
    assert done.stopped and done.pictures == 0 and not (tmp_path / "zdm").exists()
    assert preview(config(crop="centre"), [source], tmp_path / "zdm", stop=stop)[1] is None


def test_further_pictures_join_those_that_are_there(source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    prepare(config(repeats=7, trigger_word="zundamon"), [source / "a.png"], folder, models)
    again = prepare(config(), [source / "b.png"], folder, models)
    assert any("7_zundamon" in notice and "10_zdm" in notice for notice in again.notices)
    assert sorted(path.name for path in (folder / "7_zundamon").glob("*.png")) == ["a.png", "b.png"]


def test_an_unreadable_picture_does_not_stop_the_others(source: Path, models: Path, tmp_path: Path) -> None:
    (source / "c.png").write_bytes((source / "a.png").read_bytes()[:200])
    done = prepare(config(tagger=TAGGER), [source], tmp_path / "zdm", models)
    assert done.pictures == 2 and [problem.setting for problem in done.left_out] == ["mine/c.png"]


@pytest.mark.parametrize("moment", ["cutting", "tagging"])
def test_killed_in_the_middle_it_goes_on(moment: str, source: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zdm"
    code = f"""
import os, signal
from pathlib import Path
from lora_trainer.config import Config
from lora_trainer.preparing.run import prepare
def report(kind, /, **facts):
    if facts.get("name") == {moment!r}:
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
config = Config(tagger={TAGGER!r}, crop="centre", crop_size=(64, 64), trigger_word="zdm")
prepare(config, [Path({str(source)!r})], Path({str(folder)!r}), Path({str(models)!r}), report=report)
"""
    child = subprocess.run([sys.executable, "-c", code], env=environment_for_child(), check=False)
    assert child.returncode != 0
    done: Prepared = prepare(
        config(tagger=TAGGER, crop="centre", crop_size=(64, 64), trigger_word="zdm"), [source], folder, models
    )
    assert done.already == 2 and done.pictures == 2
    assert captions(folder) == {
        "a.txt": "zdm, mascot, green hair\nkept line\n",
        "b.txt": "zdm, red theme, green hair, solo",
    }
    assert {opened(path).size for path in folder.glob("10_zdm/*.png")} == {(64, 64)}

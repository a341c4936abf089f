"""What stands against a job: all of it at once, and each thing once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lora_trainer.config import Config, Subset
from lora_trainer.jobs.checks import faults
from lora_trainer.jobs.work import Prepare, Work, absolute
from tests.flux_files import make_flux
from tests.jobs.conftest import WorkOf


def told(work: Work) -> dict[str, str]:
    """The problems by their settings, of which none has two."""
    found = faults(work)
    assert len({problem.setting for problem in found}) == len(found), found
    assert all(problem.remedy.endswith(".") for problem in found)
    return {problem.setting: problem.problem for problem in found}


def test_sound_work_has_none(work_of: WorkOf) -> None:
    assert told(work_of()) == {}


def test_every_problem_comes_at_once(work_of: WorkOf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    work = work_of(
        base_model=str(tmp_path / "gone.safetensors"),
        vae=str(tmp_path / "gone.vae"),
        output_folder=str(tmp_path / "file" / "Lora"),
        subsets=(Subset(str(tmp_path / "gone")),),
        rank=0,
        output_name="a/b",
    )
    found = told(work)
    assert set(found) == {"base_model", "vae", "output_folder", "subsets", "rank", "output_name"}
    assert found["base_model"] == found["vae"] == "there is no such file"
    assert found["subsets"] == "there is no such folder"
    assert found["output_folder"].endswith("file is no folder")


def test_a_flux_base_needs_its_parts(work_of: WorkOf, tmp_path: Path) -> None:
    files = make_flux(tmp_path / "made")
    base = tmp_path / "base" / "flux.safetensors"
    base.parent.mkdir()
    files.transformer.rename(base)
    settings = {part: str(path) for part, path in files.parts.items()} | {"base_model": str(base)}

    assert told(work_of(**settings)) == {}
    lacking = told(work_of(**settings | {"clip_l": None, "t5xxl": str(tmp_path / "gone"), "ae": settings["t5xxl"]}))
    assert lacking == {
        "clip_l": "CLIP-L of this Flux model is missing",
        "t5xxl": "there is no such file",
        "ae": "holds the text encoder T5-XXL, which can't be used as Autoencoder",
    }


def test_an_empty_config_is_told_as_the_settings_tell_it() -> None:
    assert set(told(Work(Config()))) == {"base_model", "subsets", "output_name"}


def test_a_file_that_is_not_used_may_be_missing(work_of: WorkOf, tmp_path: Path) -> None:
    missing = str(tmp_path / "gone")
    assert told(work_of(family="sd15", clip_l=missing, mask_folder=missing)) == {}
    assert set(told(work_of(family="flux", clip_l=missing, ae=missing))) == {"clip_l", "ae"}
    assert told(work_of(masked_loss="folder", mask_folder=missing)) == {"mask_folder": "there is no such folder"}


def test_a_folder_without_pictures(work_of: WorkOf, tmp_path: Path) -> None:
    (tmp_path / "10_empty").mkdir()
    work = work_of(subsets=(Subset(str(tmp_path / "10_empty")),))
    assert told(work) == {"subsets": "is an empty folder"}


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "a/" * 3000, "missing/" + "ず" * 100])
@pytest.mark.parametrize("setting", ["base_model", "output_folder", "subsets", "prepare"])
def test_names_that_no_file_can_have(work_of: WorkOf, tmp_path: Path, name: str, setting: str) -> None:
    path = str(tmp_path / name)
    if setting == "prepare":
        work = work_of(Prepare(path, (path,)))
        assert set(told(work)) == ({"prepare"} if "\0" in name else {"prepare.folder", "prepare.sources"})
    elif setting == "subsets":
        assert {name.partition(".")[0] for name in told(work_of(subsets=(Subset(path),)))} == {"subsets"}
    else:
        assert set(told(work_of(**{setting: path}))) == {setting}


def test_an_output_folder_without_the_right_to_write(
    work_of: WorkOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system would say: whoever runs the tests may have every right."""
    monkeypatch.setattr(os, "access", lambda path, right: not (path == tmp_path and right == os.W_OK))
    assert told(work_of()) == {"output_folder": "can't be written to"}


def test_pictures_that_are_yet_to_be_prepared_need_not_be_there(work_of: WorkOf, tmp_path: Path) -> None:
    made, source = tmp_path / "datasets" / "zdm", tmp_path / "10_zdm"
    prepare = Prepare(str(made), (str(source),))
    subsets = (Subset(str(made / "10_zdm")),)
    assert told(work_of(prepare, subsets=subsets)) == {}
    assert told(work_of(prepare, subsets=(Subset(str(made)), Subset(str(source))))) == {}
    gone = Subset(str(tmp_path / "gone"))
    assert told(work_of(prepare, subsets=(*subsets, gone))) == {"subsets": "there is no such folder"}
    assert set(told(work_of(subsets=subsets))) == {"subsets"}


def test_what_preparing_needs(work_of: WorkOf, tmp_path: Path) -> None:
    prepare = Prepare(str(tmp_path / "set"))
    assert told(work_of(prepare, train=False)) == {"prepare.folder": "there is no such dataset"}
    assert told(work_of(replace(prepare, sources=(str(tmp_path / "gone"),)), train=False)) == {
        "prepare.sources": "there is no such file or folder"
    }
    (tmp_path / "set").mkdir()
    assert told(work_of(prepare, train=False)) == {}
    assert told(work_of(None, train=False)) == {"prepare": "there is nothing to do"}
    assert told(absolute(work_of(Prepare("", ("",)), train=False))) == {"prepare.folder": "no dataset is named"}
    assert told(work_of(Prepare(str(tmp_path), ("",)), train=False)).keys() == {"prepare.sources"}


def test_of_preparing_alone_only_its_own_settings_count(tmp_path: Path) -> None:
    work = Work(Config(rank=0, tag_threshold=7.0), Prepare(str(tmp_path)), train=False)
    assert set(told(work)) == {"tag_threshold"}


def test_what_a_grid_needs(tmp_path: Path) -> None:
    for name in ("base", "zdm"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"weights")
    config = Config(
        base_model=str(tmp_path / "base.safetensors"),
        start_lora=str(tmp_path / "zdm.safetensors"),
        preview_prompts=("zdm",),
        rank=0,  # of a training
    )
    sound = Work(config, train=False, weights=(0.7, 1.0))
    assert told(sound) == {}
    assert set(told(replace(sound, weights=(0.7, 2.5)))) == {"weights"}
    assert set(told(replace(sound, weights=(float("nan"),)))) == {"weights"}
    assert set(told(replace(sound, weights=(0.5,) * 10))) == {"weights"}
    gone = replace(config, start_lora=str(tmp_path / "gone.safetensors"), base_model="", preview_steps=0)
    assert set(told(replace(sound, config=gone))) == {"start_lora", "base_model", "preview_steps"}
    bare = replace(config, start_lora=None, preview_prompts=())
    assert set(told(replace(sound, config=bare))) == {"start_lora", "preview_prompts"}
    assert set(told(replace(sound, config=replace(config, preview_prompts=("a",) * 10)))) == {"preview_prompts"}

"""Work: read from outside, and kept in a job's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.jobs.folder import JobFolder, job_folders
from lora_trainer.jobs.work import Prepare, Work, absolute, read_prepare

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
prepares = st.builds(
    Prepare,
    folder=texts.filter(bool),
    sources=st.lists(texts).map(tuple),
    unwanted=st.lists(texts).map(tuple),
    uncut=st.booleans(),
    models=texts,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(["folder", "sources", "unwanted", "uncut", "models", "crop"])


@given(prepares)
def test_preparing_survives_json(prepare: Prepare) -> None:
    assert read_prepare(json.loads(json.dumps(asdict(prepare)))) == prepare


@given(json_values | st.dictionaries(names, json_values))
def test_whatever_is_said_of_preparing_is_read_or_refused(values: object) -> None:
    try:
        prepare = read_prepare(values)
    except BadInput as error:
        assert all(problem.setting.startswith("prepare") and problem.remedy for problem in error.problems)
    else:
        assert isinstance(values, dict) and prepare.folder == values["folder"]
        assert set(values) <= set(asdict(prepare))


def test_everything_wrong_with_preparing_is_told_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        read_prepare({"sources": "a", "unwanted": [1], "uncut": 1, "models": None, "crop": "focus"})
    told = [problem.setting.removeprefix("prepare.") for problem in caught.value.problems]
    assert told == ["sources", "unwanted", "uncut", "models", "crop", "folder"]


def test_what_a_job_is_called(tmp_path: Path) -> None:
    config = Config(dataset_name="set", output_folder="Lora")
    assert Work(config).name == "set"
    named = Work(replace(config, output_name="zdm"), Prepare("datasets/set"))
    assert (named.name, named.kind, named.output_folder) == ("zdm", "train", "Lora")
    alone = replace(named, train=False, prepare=Prepare(str(tmp_path / "datasets" / "set")))
    assert (alone.name, alone.kind, alone.output_folder) == ("set", "prepare", str(tmp_path / "datasets"))


def test_a_grid_is_called_as_its_lora(tmp_path: Path) -> None:
    grid = Work(Config(start_lora=str(tmp_path / "zdm v1.5.safetensors")), train=False, weights=(0.8,))
    assert (grid.name, grid.kind, grid.output_folder) == ("zdm v1.5", "grid", str(tmp_path))
    folder = JobFolder(tmp_path / "3")
    folder.write(grid, 1.0)
    assert folder.read() == grid


def test_a_folder_from_before_there_were_grids_is_read(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "3")
    folder.write(Work(Config(rank=5)), 1.0)
    told = json.loads(folder.work.read_text(encoding="utf-8"))
    del told["weights"]
    folder.work.write_text(json.dumps(told), encoding="utf-8")
    assert folder.read() == Work(Config(rank=5))


def test_paths_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    prepare = Prepare("set", ("a.zip", "../b"), ("tag",), models="models")
    config = Config(base_model="base.safetensors", subsets=(Subset("~/10_a"), Subset("x/../10_b", class_tokens="b")))
    work = absolute(Work(config, prepare))
    assert work.prepare == Prepare(
        str(tmp_path / "set"),
        (str(tmp_path / "a.zip"), str(tmp_path.parent / "b")),
        ("tag",),
        models=str(tmp_path / "models"),
    )
    assert work.config.base_model == str(tmp_path / "base.safetensors")
    assert [part.folder for part in work.config.subsets] == [str(tmp_path / "home" / "10_a"), str(tmp_path / "10_b")]
    assert work.config.subsets[1].class_tokens == "b"
    assert work.config.output_folder == str(tmp_path / "output")
    assert work.config.vae is None and replace(work.config, output_folder="", subsets=(), base_model="") == replace(
        config, output_folder="", subsets=(), base_model=""
    )
    assert absolute(work) == work
    unsaid = absolute(Work(Config(), Prepare("~nobody-of-this-name/set")))
    assert unsaid.config.base_model == "" and unsaid.prepare
    assert Path(unsaid.prepare.folder).parts[-2:] == ("~nobody-of-this-name", "set")


@pytest.mark.parametrize("prepare", [None, Prepare("set 🫛", ("a", "b"), ("tag",), True, "models")])
@pytest.mark.parametrize("train", [True, False])
def test_a_folder_keeps_the_work(tmp_path: Path, prepare: Prepare | None, train: bool) -> None:
    config = Config(base_model="ずんだ.safetensors", subsets=(Subset("10_a"),), learning_rate=3e-5, comment='"\n')
    folder = JobFolder(tmp_path / "jobs" / "12")
    folder.write(Work(config, prepare, train), 5.25)
    assert (folder.id, folder.read(), folder.created_at()) == (12, Work(config, prepare, train), 5.25)
    with pytest.raises(FileExistsError):
        folder.write(Work(config), 6.0)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"kind": "train", "created_at": "noon", "prepare": null}'])
def test_a_damaged_job_is_a_sentence(tmp_path: Path, text: str | None) -> None:
    folder = JobFolder(tmp_path / "12")
    folder.write(Work(Config()), 5.0)
    if text is None:
        folder.work.unlink()
    else:
        folder.work.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"job = 12: its job\.json can't be read .*Delete the job"):
        folder.read()


def test_the_jobs_of_a_queue_are_its_numbered_folders(tmp_path: Path) -> None:
    for name in ("10", "9", "x", "jobs.sqlite", "-1", "2.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("no folder", encoding="utf-8")
    assert [folder.id for folder in job_folders(tmp_path)] == [9, 10]


def test_a_new_beginning_sets_aside_what_was_made(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "12")
    folder.write(Work(Config()), 5.0)
    kept = {*folder.path.iterdir()}
    folder.set_aside()
    assert {*folder.path.iterdir()} == kept
    for number in ("1", "2"):
        for path in (folder.models / "zdm.safetensors", folder.samples / "a.png", folder.tensorboard / "b"):
            path.parent.mkdir()
            path.write_text(number, encoding="utf-8")
        folder.run.write_text(number, encoding="utf-8")
        folder.state.write_text(number, encoding="utf-8")
        folder.set_aside()
    assert {*folder.path.iterdir()} == {*kept, folder.earlier}
    for number in ("1", "2"):
        files = {path.relative_to(folder.earlier / number) for path in (folder.earlier / number).rglob("*.*")}
        assert files == {Path("models/zdm.safetensors"), Path("samples/a.png"), Path("run.json")}
        assert (folder.earlier / number / "models" / "zdm.safetensors").read_text(encoding="utf-8") == number

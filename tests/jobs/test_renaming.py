"""A LoRA that calls itself otherwise, read back by safetensors itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from lora_trainer.jobs.renaming import is_same, renamed
from tests.jobs.made import lora


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "zdm-000001.safetensors"
    path.write_bytes(lora(**{"modelspec.title": "zdm"}))
    return path


def said(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as opened:
        return dict(opened.metadata())


@pytest.mark.parametrize("name", ["mascot", "ずんだ v1.5", "a", "n" * 200])
def test_only_its_name_changes(file: Path, tmp_path: Path, name: str) -> None:
    before, weights = said(file), load_file(file)
    with renamed(file, tmp_path / "Lora" / f"{name}.safetensors") as copy:
        assert said(copy) == {**before, "ss_output_name": name, "modelspec.title": name}
        found = load_file(copy)
        assert found.keys() == weights.keys()
        assert all(np.array_equal(found[key], weights[key]) for key in weights)
        assert is_same(file, copy) and is_same(copy, file)
    assert not copy.exists() and said(file) == before


def test_a_title_of_the_users_own_stays(tmp_path: Path) -> None:
    path = tmp_path / "zdm.safetensors"
    path.write_bytes(lora(**{"modelspec.title": "My mascot"}))
    with renamed(path, tmp_path / "other.safetensors") as copy:
        assert said(copy)["modelspec.title"] == "My mascot" and said(copy)["ss_output_name"] == "other"


@pytest.mark.parametrize("data", [b"", b"no weights at all", b"\x02" + bytes(7) + b"[]", lora(ss_output_name="")])
def test_a_file_that_says_no_name_is_taken_as_it_is(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    with renamed(path, tmp_path / "other.safetensors") as same:
        assert same == path
    assert path.read_bytes() == data


def test_a_lora_of_that_name_is_taken_as_it_is(file: Path, tmp_path: Path) -> None:
    with renamed(file, tmp_path / "Lora" / "zdm.safetensors") as same:
        assert same == file
    assert not (tmp_path / "Lora").exists()


def test_nothing_is_left_where_it_fails(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"), renamed(file, tmp_path / "Lora" / "other.safetensors"):
        pytest.fail("it was not written")
    assert not list((tmp_path / "Lora").iterdir())


@pytest.mark.parametrize("other", [lora(8), lora(ss_epoch="2"), lora()[:-2] + b"!!", b"", lora()[:-1]])
def test_another_is_another(file: Path, tmp_path: Path, other: bytes) -> None:
    file.write_bytes(lora())
    path = tmp_path / "other.safetensors"
    path.write_bytes(other)
    assert not is_same(file, path) and not is_same(path, file)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=30), max_size=5), st.text(min_size=1, max_size=20))
def test_whatever_it_says_stays(tmp_path_factory: pytest.TempPathFactory, facts: dict[str, str], name: str) -> None:
    path = tmp_path_factory.mktemp("loras") / "zdm.safetensors"
    facts = {key: value for key, value in facts.items() if key != "modelspec.title"}
    save_file({"weight": np.arange(5, dtype=np.float16)}, path, {**facts, "ss_output_name": name})
    with renamed(path, path.with_name("other.safetensors")) as copy:
        assert said(copy) == {**facts, "ss_output_name": "other"}
        assert load_file(copy)["weight"].tolist() == [0, 1, 2, 3, 4]

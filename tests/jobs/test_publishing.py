"""A LoRA's second place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lora_trainer.jobs.publishing import publish
from tests.dataset.store.conftest import copied_at_each_step, hook

__all__ = ["hook"]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.fixture(params=["link", "copy"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A disk with second names for a file, and one without."""

    def refuse(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    if request.param == "copy":
        monkeypatch.setattr(os, "link", refuse)
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / "zdm.safetensors"
    path.parent.mkdir()
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_it_is_the_same_file_or_an_equal_one(source: Path, tmp_path: Path, disk: str) -> None:
    target = tmp_path / "Lora" / "ずんだ.safetensors"
    for _ in range(2):
        publish(source, target)
        assert target.read_bytes() == source.read_bytes()
        assert target.samefile(source) == (disk == "link")
        assert names(target.parent) == [target.name]
    source.unlink()
    assert target.stat().st_size == 3 << 20


def test_no_other_file_is_written_over(source: Path, tmp_path: Path, disk: str) -> None:
    target = tmp_path / "zdm.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"zdm\.safetensors is in .* already"):
        publish(source, target)
    assert target.read_bytes() == b"mine"


def test_another_file_of_the_same_length_and_age_is_another(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "zdm.safetensors"
    target.write_bytes(bytes(3 << 20))
    times = source.stat().st_atime_ns, source.stat().st_mtime_ns
    os.utime(target, ns=times)
    with pytest.raises(FileExistsError):
        publish(source, target)


def test_a_file_that_comes_meanwhile_stays(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        target.write_bytes(b"mine")
        real(source, target)

    real = os.link
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(FileExistsError):
        publish(source, tmp_path / "zdm.safetensors")
    assert (tmp_path / "zdm.safetensors").read_bytes() == b"mine"


def test_an_equal_file_is_left_alone(source: Path, tmp_path: Path, disk: str) -> None:
    target = tmp_path / "zdm.safetensors"
    target.write_bytes(source.read_bytes())
    before = target.stat().st_ino
    publish(source, target)
    assert target.stat().st_ino == before


def test_a_kill_leaves_the_whole_file_or_none(source: Path, tmp_path: Path, disk: str) -> None:
    folder = tmp_path / "Lora"
    folder.mkdir()
    with copied_at_each_step(folder, tmp_path / "copies") as made:
        publish(source, folder / "zdm.safetensors")
    assert made
    for copy in made:
        assert all(path.read_bytes() == source.read_bytes() for path in copy.glob("*.safetensors"))
        publish(source, copy / "zdm.safetensors")
        assert (copy / "zdm.safetensors").read_bytes() == source.read_bytes()


def test_a_disk_that_refuses_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        publish(source, tmp_path / "Lora" / "zdm.safetensors")
    assert names(tmp_path / "Lora") == []

from __future__ import annotations

from pathlib import Path

from lora_trainer.hosts.standalone import Standalone


def names(host: Standalone) -> list[str]:
    return [name for name, _ in host.checkpoints()]


def test_the_demos_base_and_pictures_are_there_from_the_first_start(tmp_path: Path) -> None:
    host = Standalone(folder=tmp_path / "mine")
    host.set_up()
    ((_, base),) = host.checkpoints()
    assert base.is_file()
    assert len(list((host.datasets / "demo").rglob("*.png"))) == 7
    assert host.lora_folders()[0].is_dir()
    assert all(folder.is_dir() for folder in host.part_folders())


def test_a_later_start_brings_nothing_back_that_was_deleted(tmp_path: Path) -> None:
    host = Standalone(folder=tmp_path)
    host.datasets.mkdir()
    host.set_up()
    assert not list(host.datasets.iterdir())


def test_the_users_own_models_come_first(tmp_path: Path) -> None:
    host = Standalone(folder=tmp_path)
    host.set_up()
    own = host.models / "Stable-diffusion" / "XL" / "ずんだ.safetensors"
    own.parent.mkdir()
    own.write_bytes(b"weights")
    (own.parent / "notes.txt").touch()
    assert names(host) == ["XL/ずんだ.safetensors", "demo/base.safetensors"]

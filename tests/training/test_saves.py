"""Names of a run's files, and whose files they are."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_trainer.config import BadInput, file_name_fault
from lora_trainer.training.saves import Outputs, check_writable, choose_outputs
from lora_trainer.training.state import State, load_state, save_state


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(name.encode("utf-8"))


def test_names(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, "blob")
    assert outputs.final == tmp_path / "blob.safetensors"
    assert outputs.after_epoch(7) == tmp_path / "blob-000007.safetensors"
    assert outputs.after_step(1200) == tmp_path / "blob-step00001200.safetensors"
    assert outputs.state == tmp_path / "blob-run" / "state.bin"
    assert outputs.previews == tmp_path / "blob-run" / "previews"


def test_other_peoples_files_are_not_a_runs_own(tmp_path: Path) -> None:
    mine = ("blob-000001.safetensors", "blob-000010.safetensors", "blob-step00000003.safetensors", "blob.safetensors")
    others = (
        "blob-old.safetensors", "blob-000001-merged.safetensors", "blob-v2.safetensors", "blob-step.safetensors",
        "blob2.safetensors", "blob-000001.png", "Xblob-000001.safetensors", "my blob.safetensors", "blob-.safetensors",
    )  # fmt: skip
    touch(tmp_path, *mine, *others)
    assert [path.name for path in Outputs(tmp_path, "blob").existing()] == sorted(mine)
    assert Outputs(tmp_path, "nobody").existing() == []
    assert Outputs(tmp_path / "gone", "blob").existing() == []


def test_a_taken_name_is_refused_or_numbered(tmp_path: Path) -> None:
    touch(tmp_path, "blob-000002.safetensors")
    with pytest.raises(BadInput, match=r"blob-000002\.safetensors exists already"):
        choose_outputs(tmp_path, "blob", "refuse")
    assert choose_outputs(tmp_path, "blob", "number").name == "blob-v2"
    touch(tmp_path, "blob-v2.safetensors")
    (tmp_path / "blob-v3-run").mkdir()
    assert choose_outputs(tmp_path, "blob", "number").name == "blob-v4"
    assert choose_outputs(tmp_path, "fresh", "number").name == choose_outputs(tmp_path, "fresh", "refuse").name


# Letters that globs, shells and regular expressions read in ways of their own.
NAMES = st.text("ab[]!*?{}()^$.+-~'# 絵\u0301🐈", min_size=1, max_size=8).filter(lambda name: not file_name_fault(name))


@given(name=NAMES, other=NAMES)
def test_every_name_finds_its_own_files_alone(tmp_path_factory: pytest.TempPathFactory, name: str, other: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    outputs, others = Outputs(folder, name), Outputs(folder, other)
    files = {outputs.final, outputs.after_epoch(3), outputs.after_step(12)}
    for path in files | {others.final, others.after_epoch(3), folder / f"{name}-old.safetensors"}:
        path.write_bytes(b"")
    found = set(outputs.existing())
    assert files <= found
    if other != name:
        assert others.after_epoch(3) not in found or others.after_epoch(3) in files
        assert folder / f"{name}-old.safetensors" not in found
    shutil.rmtree(folder)


def test_looking_for_room_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", 1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    check_writable(tmp_path / "there" / "b", 1)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(BadInput, match="the run needs about 8796093022208 MiB"):
        check_writable(tmp_path / "there" / "b", 2**63)
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def state(step: int) -> State:
    return State(step, {"key": torch.arange(3.0)}, {"state": {0: torch.ones(2)}}, {"last": step}, {}, 0.5)


def test_a_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.bin"
    assert load_state(path) is None
    save_state(path, state(3))
    found = load_state(path)
    assert found is not None and found.step == 3 and found.network["key"].tolist() == [0, 1, 2]


def test_a_state_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    """What torch raises then has to be an OSError: a run tells it apart from its own faults by that."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no file that is always full")
    path = tmp_path / "state.bin"
    save_state(path, state(3))
    (tmp_path / f".state.bin.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError) as failed:
        save_state(path, state(4))
    assert failed.value.errno == errno.ENOSPC
    found = load_state(path)
    assert found is not None and found.step == 3 and [entry.name for entry in tmp_path.iterdir()] == ["state.bin"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"text" * 99])
def test_a_damaged_state_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "state.bin"
    save_state(path, state(3))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=r"state\.bin.*can't be read.*--fresh"):
        load_state(path)


def test_a_state_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "harmed",)

    torch.save({"step": Harm()}, tmp_path / "state.bin")
    with pytest.raises(BadInput, match="can't be read"):
        load_state(tmp_path / "state.bin")
    assert not (tmp_path / "harmed").exists()

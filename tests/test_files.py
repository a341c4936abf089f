"""Files that are whole or not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_trainer.files import is_temporary, write_text, written_whole


def test_writes_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "絵 🐈" / "file.txt"
    write_text(path, "青い髪\nsecond\n")
    assert path.read_bytes() == "青い髪\nsecond\n".encode()
    write_text(path, "other")
    assert path.read_text(encoding="utf-8") == "other"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt(), ValueError("odd")])
@pytest.mark.parametrize("before", [None, b"old and whole"])
def test_what_fails_in_mid_writing_leaves_the_old_file(
    tmp_path: Path, error: BaseException, before: bytes | None
) -> None:
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(error)), written_whole(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if before is None else [before])


def test_a_process_that_dies_in_mid_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old and whole")
    dying = (
        "import os, sys; from pathlib import Path; from lora_trainer.files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os._exit(9)"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", dying, str(path)], cwd=root, check=False)
    assert done.returncode == 9 and path.read_bytes() == b"old and whole"


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave the name with nothing behind it. The folder follows, as it holds the name."""
    path, done = tmp_path / "file.bin", []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        is_folder = os.name != "nt" and os.fstat(handle).st_ino == tmp_path.stat().st_ino
        done.append(("sync", "folder" if is_folder else os.fstat(handle).st_size))
        real_sync(handle)

    def rename(old: Path, new: Path) -> None:
        done.append(("rename", Path(new).name))
        assert Path(old).parent == tmp_path
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    write_text(path, "12345")
    folder = [] if os.name == "nt" else [("sync", "folder")]
    assert done == [("sync", 5), ("rename", "file.bin"), *folder]


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    """As where a folder has the name, or on Windows another program holds the file."""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inner").write_text("mine", encoding="utf-8")
    with pytest.raises(OSError):
        write_text(tmp_path / "taken", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("stem", ["n" * 251, "é" * 125, "🐈" * 62])
def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path: Path, stem: str) -> None:
    write_text(tmp_path / f"{stem}.txt", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{stem}.txt"]


@pytest.mark.parametrize("name", ["a.txt", "n" * 247 + ".caption", "🐈.TXT", "a b.txt", ".hidden.txt"])
def test_a_half_written_file_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    endings = (".txt", ".caption")
    assert not is_temporary(name, endings)
    with written_whole(tmp_path / name) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path
        assert is_temporary(temporary.name, endings) and not is_temporary(temporary.name, (".safetensors",))

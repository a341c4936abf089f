from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer.commands.output import write_output, written_output
from lora_trainer.config import BadInput


def test_what_is_written_is_there_whole(tmp_path: Path) -> None:
    write_output(tmp_path / "new" / "猫.toml", "ü\n")
    assert (tmp_path / "new" / "猫.toml").read_bytes() == "ü\n".encode()


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match=r'output = ".*out\.toml": cannot be written'):
        write_output(tmp_path / "file" / "out.toml", "text")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    path.write_bytes(b"old")
    with pytest.raises(BadInput, match="No space left"), written_output(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.png"] and path.read_bytes() == b"old"

"""The words after `serve`; tests/browser has the page itself."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from lora_trainer.commands.serve import set_up
from lora_trainer.packages import PackageProblem
from tests.commands.conftest import Command


def test_a_port_that_another_program_has_is_told(command: Command, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = command("serve", "--port", str(port), "--folder", str(tmp_path / "mine"))
    assert said.code == 2 and len(said.errors) == 1
    assert str(port) in said.errors[0] and "--port" in said.errors[0]
    assert not (tmp_path / "mine").exists()


def test_a_port_that_is_none_is_told(command: Command) -> None:
    said = command("serve", "--port", "70000")
    assert said.code == 2 and "70000" in said.errors[0]


@pytest.mark.parametrize("users", ["alice", "alice:", ":secret"])
def test_a_user_without_a_password_is_told(users: str, capsys: pytest.CaptureFixture[str], command: Command) -> None:
    with pytest.raises(SystemExit):
        command("serve", "--auth", users)
    assert "USER:PASSWORD" in capsys.readouterr().err


def program(folder: Path, code: str) -> str:
    """A program that takes a Python's place."""
    path = folder / "python"
    path.write_text(f"#!{sys.executable}\n{code}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows starts no script by its first line")
def test_the_python_that_trains_is_set_up_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[str] = []
    set_up(program(tmp_path, "import sys; print('Installing', sys.argv[-1]); print('done')"), told.append)
    assert told == ["Installing setup", "done"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows starts no script by its first line")
def test_what_keeps_it_from_being_set_up_is_told_in_its_own_last_words(tmp_path: Path) -> None:
    with pytest.raises(PackageProblem, match="^The disk is full. Make room.$"):
        set_up(program(tmp_path, "import sys; print('Installing'); sys.exit('The disk is full. Make room.')"), print)

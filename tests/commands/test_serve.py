"""The words after `serve`; tests/browser has the page itself."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

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

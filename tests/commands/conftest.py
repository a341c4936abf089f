"""The command line, called in this process on a small base and a few pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_trainer.__main__ import main
from lora_trainer.config import Config, dump_toml
from tests.training.conftest import base, config_of, pictures

__all__ = ["base", "config_of", "pictures"]


@dataclass(frozen=True)
class Said:
    """What a command left behind: its exit code and the lines of its two streams."""

    code: int
    out: list[str]
    errors: list[str]


Command = Callable[..., Said]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below `folder` with its bytes, every folder with None, hidden ones too."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def write_config(config: Config, folder: Path) -> Path:
    path = folder / "config.toml"
    path.write_text(dump_toml(config), encoding="utf-8")
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `python -m lora_trainer ARGUMENTS...` as far as one can without a process of its own."""

    def run(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Said(code, said.out.splitlines(), said.err.splitlines())

    return run


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., list[str]]:
    """Trains as a config says, sees that it is refused as bad input and that the test's folder stays as it was;
    returns what it says, a line for each problem."""

    def run(config: Config | Path, *arguments: str) -> list[str]:
        file = write_config(config, tmp_path) if isinstance(config, Config) else config
        before = contents(tmp_path)
        said = command("train", file, *arguments)
        assert (said.code, said.out) == (2, []), said
        assert contents(tmp_path) == before
        assert not any("Traceback" in line or "Error" in line for line in said.errors), said
        return said.errors

    return run

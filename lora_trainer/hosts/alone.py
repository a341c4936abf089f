"""No host at all: the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.hosts.host import Drawing, draws_nothing


@dataclass(frozen=True)
class NoHost:
    """A Host that has neither GPU memory nor folders of its own."""

    name: str = "the command line"
    python: str = sys.executable

    def lora_folders(self) -> list[Path]:
        return []

    def part_folders(self) -> list[Path]:
        return []

    def checkpoints(self) -> list[tuple[str, Path]]:
        return []

    def refresh_checkpoints(self) -> None:
        """It looks each time."""

    def current_checkpoint(self) -> str:
        return ""

    def free_gpu(self) -> None:
        """There is nothing on it."""

    def take_gpu_back(self) -> None:
        """It needs none."""

    def refresh_loras(self) -> None:
        """It shows none."""

    @property
    def draws(self) -> bool:
        return False

    def draw(self, drawing: Drawing, target: Path) -> None:
        raise draws_nothing(self.name)

    def stop_drawing(self) -> None:
        """It draws none."""

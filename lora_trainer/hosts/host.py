"""What the queue, the tab and the API need of the program they run in. Standard library only."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class HostProblem(Exception):
    """What the host could not do, in one sentence, and what to do about it, in another."""


class Host(Protocol):
    """`name` as people call it; `python`: the interpreter that workers run in. Every method may raise HostProblem."""

    @property
    def name(self) -> str: ...

    @property
    def python(self) -> str: ...

    def lora_folders(self) -> list[Path]:
        """Where it looks for LoRAs; finished ones go to the first."""

    def checkpoints(self) -> list[tuple[str, Path]]:
        """The base models it knows: name and file."""

    def refresh_checkpoints(self) -> None:
        """A base model may have come into its folders."""

    def current_checkpoint(self) -> str:
        """The name of the base model that it makes pictures with; empty where there is none."""

    def free_gpu(self) -> None:
        """Takes everything of its own off the GPU before a job starts. Called again where it was done already."""

    def take_gpu_back(self) -> None:
        """The GPU is the host's again."""

    def refresh_loras(self) -> None:
        """A LoRA may have come into its folders."""

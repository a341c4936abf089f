"""What the queue, the tab and the API need of the program they run in. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class HostProblem(Exception):
    """What the host could not do, in one sentence, and what to do about it, in another."""


def draws_nothing(host: str) -> HostProblem:
    """What a host of this name says that makes no pictures itself."""
    return HostProblem(f"Pictures are not made by {host}. Draw the grid as a job.")


@dataclass(frozen=True)
class Drawing:
    """A picture that a host is to make, in the WebUI's words.

    `checkpoint`: a base model by the host's name for it; `width` and `height` in pixels; `clip_skip`: None is as the
    host has it; `loras`: each file with its strength; `guidance`: by which a Flux draws, None for all others.
    """

    checkpoint: str
    prompt: str
    negative_prompt: str
    steps: int
    cfg_scale: float
    sampler: str
    width: int
    height: int
    seed: int
    clip_skip: int | None = None
    loras: tuple[tuple[Path, float], ...] = ()
    guidance: float | None = None


class Host(Protocol):
    """`name` as people call it; `python`: the interpreter that workers run in. Every method may raise HostProblem."""

    @property
    def name(self) -> str: ...

    @property
    def python(self) -> str: ...

    def lora_folders(self) -> list[Path]:
        """Where it looks for LoRAs; finished ones go to the first."""

    def part_folders(self) -> list[Path]:
        """Where it looks for text encoders, VAEs and tokenizers, with those first into which new ones go."""

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

    @property
    def draws(self) -> bool:
        """Whether it makes pictures itself."""

    def draw(self, drawing: Drawing, target: Path) -> None:
        """Makes the picture, a PNG at `target` that is whole or not there. Waits for what the host is busy with."""

    def stop_drawing(self) -> None:
        """The picture that `draw` makes in another thread is wanted no more: `draw` ends soon, with HostProblem."""

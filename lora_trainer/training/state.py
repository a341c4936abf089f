"""The training state: everything that a run needs to go on as if it had never been stopped.

There is no state of random numbers in it: every draw is a function of the seed and its place (`randomness`).
"""

from __future__ import annotations

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_trainer.config import BadInput, Problem
from lora_trainer.files import written_whole
from lora_trainer.training.families.tensors import UNPICKLING_GARBAGE


@dataclass
class State:
    """After `step` steps: the LoRA's weights (float32) and what its learner remembers.

    `optimizer_name` is that of the optimizer whose memory `optimizer` is, "" where an older version wrote the state.
    """

    step: int
    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    loss_average: float
    optimizer_name: str = ""


def save_state(path: Path, state: State) -> None:
    """OSError if the disk does not take it: given a path instead of a file, torch would raise something else."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        torch.save(asdict(state), file)


def load_state(path: Path) -> State | None:
    """None where there is none. BadInput if the file is damaged or not a training state."""
    if not path.is_file():
        return None
    try:
        return State(**torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, *UNPICKLING_GARBAGE) as error:
        raise BadInput(
            Problem(
                "training state",
                str(path.name),
                f"can't be read ({type(error).__name__})",
                "Delete it, or train with --fresh, to start this run from its beginning.",
            )
        ) from error

"""Why a job failed: errors as Python, torch and the system raise them."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lora_trainer.config import BadInput, Problem
from lora_trainer.packages import PackageProblem
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.worker.reasons import explained


def raised(act: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        act()
    return caught.value


def disk_full() -> None:
    try:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")
    except OSError as error:
        raise TrainingFailed("The save after step 3 failed.", "Free some space.") from error


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("out_of_memory", MemoryError()),
        ("out_of_memory", raised(lambda: torch.empty(2**60))),
        ("out_of_memory", torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        ("disk_full", OSError(errno.ENOSPC, "No space left on device")),
        ("disk_full", raised(disk_full)),
        ("nan", TrainingFailed("The loss became nan.", "Lower the rate.", "nan")),
        ("base_changed", TrainingFailed("The base changed.", "Put it back.", "base_changed")),
        ("missing_package", raised(lambda: importlib.import_module("no_such_package_at_all"))),
        ("missing_package", PackageProblem("The packages are not installed. Run setup.")),
        ("driver", RuntimeError("CUDA error: an illegal memory access was encountered")),
        ("driver", RuntimeError("Found no NVIDIA driver on your system.")),
        ("failed", RuntimeError("mat1 and mat2 shapes cannot be multiplied")),
        ("failed", PermissionError(errno.EACCES, "Permission denied", "somewhere")),
        ("failed", ZeroDivisionError()),
    ],
)
def test_errors(reason: str, error: BaseException) -> None:
    told = explained(error)
    assert told["reason"] == reason
    assert told["cause"].endswith(".") and told["remedy"].endswith(".")
    assert "\n" not in told["cause"]


def test_the_sentences_of_a_failure_are_its_own() -> None:
    told = explained(raised(disk_full))
    assert (told["cause"], told["remedy"]) == ("The save after step 3 failed.", "Free some space.")


def test_bad_input_keeps_every_problem(tmp_path: Path) -> None:
    problems = [
        Problem("rank", 0, "must be at least 1", "Use 16."),
        Problem("base_model", "gone", "is not there", "Choose another."),
        Problem("alpha", 0, "must be at least 1", "Use 16."),
    ]
    told = explained(BadInput(problems), str(tmp_path / "gone"))
    assert told["reason"] == "base_missing"
    assert [problem["setting"] for problem in told["problems"]] == ["rank", "base_model", "alpha"]
    assert told["cause"].count("must be at least 1.") == 2 and told["remedy"] == "Use 16. Choose another."
    assert explained(BadInput(problems[0]), str(tmp_path / "gone"))["reason"] == "bad_input"
    (tmp_path / "gone").write_bytes(b"no base")
    assert explained(BadInput(problems), str(tmp_path / "gone"))["reason"] == "bad_input"

"""Why a job failed and what to do about it, in sentences, and in a word for programs."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput, Problem
from lora_trainer.packages import DAMAGED, PackageProblem
from lora_trainer.training.failure import TrainingFailed

_RESUME = "Then resume the job: it goes on from its last saved state."
_REMEDIES = {
    "out_of_memory": f"Close other programs, or choose a smaller resolution or batch. {_RESUME}",
    "disk_full": f"Make room on the disk. {_RESUME}",
    "missing_package": f"{DAMAGED} {_RESUME}",
    "driver": f"Restart the computer; where it happens again, update the GPU's driver. {_RESUME}",
    "failed": "The job's log tells more. Resume the job: it goes on from its last saved state.",
}
_DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_DISK_FULL_ON_WINDOWS = (39, 112)  # ERROR_HANDLE_DISK_FULL, ERROR_DISK_FULL
_DRIVER = re.compile(r"CUDA|cuDNN|cuBLAS|CUBLAS|NVML|HIP error|NVIDIA driver|device-side assert")


def explained(error: BaseException, base_model: str = "") -> dict[str, Any]:
    """The facts of the event "failed": `reason`, `cause`, `remedy`, and of bad input each of its `problems`.

    `base_model`: the path of the job's, "" where the job could not be read. A reason is one of out_of_memory,
    disk_full, nan, base_missing, base_changed, bad_input, missing_package, driver, failed.
    """
    if isinstance(error, BadInput):
        return _of_problems(error.problems, base_model)
    reason = reason_of(error)
    if isinstance(error, TrainingFailed):
        return {"reason": reason, "cause": error.cause, "remedy": error.remedy}
    said = str(error).strip().partition("\n")[0]
    cause = said if isinstance(error, PackageProblem) else f"{type(error).__name__}: {said}".rstrip(": ") + "."
    return {"reason": reason, "cause": cause, "remedy": _REMEDIES[reason]}


def reason_of(error: BaseException) -> str:
    """Looked for in the error and in what it was raised from."""
    chain = list(_chain(error))
    if _is_out_of_memory(error):
        return "out_of_memory"
    if any(isinstance(each, OSError) and _is_disk_full(each) for each in chain):
        return "disk_full"
    if isinstance(error, TrainingFailed):
        return error.reason
    if any(isinstance(each, (ImportError, PackageProblem)) for each in chain):
        return "missing_package"
    return "driver" if any(isinstance(each, RuntimeError) and _DRIVER.search(str(each)) for each in chain) else "failed"


def _of_problems(problems: tuple[Problem, ...], base_model: str) -> dict[str, Any]:
    about_base = any(each.setting == "base_model" for each in problems)
    gone = about_base and bool(base_model) and not Path(base_model).exists()
    return {
        "reason": "base_missing" if gone else "bad_input",
        "cause": " ".join(str(Problem(each.setting, each.value, each.problem, "")) for each in problems),
        "remedy": " ".join(dict.fromkeys(each.remedy for each in problems)),
        "problems": [
            {"setting": each.setting, "value": each.value, "problem": each.problem, "remedy": each.remedy}
            for each in problems
        ],
    }


def _is_disk_full(error: OSError) -> bool:
    return error.errno in _DISK_FULL or getattr(error, "winerror", None) in _DISK_FULL_ON_WINDOWS


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # which may be what is missing
        return isinstance(error, MemoryError)
    from lora_trainer.training.memory import is_out_of_memory

    return is_out_of_memory(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__

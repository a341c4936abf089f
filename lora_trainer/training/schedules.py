"""How the learning rate goes over a run: a factor of each group's own rate at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffusers import optimization
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lora_trainer.training.choices import chosen
from lora_trainer.training.optimizers import is_schedule_free, sets_its_own_rate


@dataclass(frozen=True)
class Course:
    """What a schedule may depend on; all counts are optimizer steps."""

    total_steps: int
    warmup_steps: int = 0
    restarts: int = 1
    power: float = 1.0


def _polynomial(optimizer: Optimizer, course: Course) -> LambdaLR:
    """(1 - progress) ** power after the warm-up; diffusers' own divides by 0 where the warm-up is the whole run."""

    def factor(step: int) -> float:
        if step < course.warmup_steps:
            return step / course.warmup_steps
        left = (course.total_steps - step) / max(1, course.total_steps - course.warmup_steps)
        return float(max(0.0, left) ** course.power)

    return LambdaLR(optimizer, factor)


def _cosine_with_restarts(optimizer: Optimizer, course: Course) -> LambdaLR:
    return optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
        optimizer, course.warmup_steps, course.total_steps, course.restarts
    )


def _cosine(optimizer: Optimizer, course: Course) -> LambdaLR:
    return optimization.get_cosine_schedule_with_warmup(optimizer, course.warmup_steps, course.total_steps)


def _linear(optimizer: Optimizer, course: Course) -> LambdaLR:
    return optimization.get_linear_schedule_with_warmup(optimizer, course.warmup_steps, course.total_steps)


def _constant_with_warmup(optimizer: Optimizer, course: Course) -> LambdaLR:
    return optimization.get_constant_schedule_with_warmup(optimizer, course.warmup_steps)


def _constant(optimizer: Optimizer, course: Course) -> LambdaLR:
    return optimization.get_constant_schedule(optimizer)


SCHEDULES: dict[str, Callable[[Optimizer, Course], LambdaLR]] = {
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine": _cosine,
    "linear": _linear,
    "polynomial": _polynomial,
    "constant_with_warmup": _constant_with_warmup,
    "constant": _constant,
}


def build_schedule(
    name: str, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, restarts: int = 1, power: float = 1.0
) -> LambdaLR:
    """The schedule of that name, its factor at step k being the one used by the optimizer's (k+1)-th step.

    A schedule-free optimizer keeps its rate after the warm-up, whatever the name; one that sets its own rate (Adafactor
    with relative steps) is left alone. Raises BadInput for an unknown name.
    """
    build = chosen(SCHEDULES, name, "schedule")
    if sets_its_own_rate(optimizer):
        build = _constant
    elif is_schedule_free(optimizer):
        build = _constant_with_warmup
    return build(optimizer, Course(total_steps, warmup_steps, restarts, power))

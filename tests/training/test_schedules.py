from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_trainer.config import SETTINGS, BadInput
from lora_trainer.training.optimizers import build_optimizer
from lora_trainer.training.schedules import SCHEDULES, build_schedule

RATE = 1e-4


def rates(
    name: str,
    total: int,
    warmup: int = 0,
    restarts: int = 1,
    power: float = 1.0,
    optimizer: str = "AdamW",
    args: tuple[str, ...] = (),
) -> list[float]:
    """The rate in force at each of the run's steps."""
    built = build_optimizer(optimizer, [{"params": [nn.Parameter(torch.zeros(2))], "lr": RATE}], args)
    schedule = build_schedule(name, built, total, warmup, restarts, power)
    seen = []
    for _ in range(total):
        seen.append(built.param_groups[0]["lr"])
        built.step()
        schedule.step()
    return seen


CLOSED_FORMS: dict[str, Callable[[float, int, float], float]] = {
    "cosine_with_restarts": lambda x, restarts, power: (1 + math.cos(math.pi * math.fmod(restarts * x, 1))) / 2,
    "cosine": lambda x, restarts, power: math.cos(math.pi * x / 2) ** 2,
    "linear": lambda x, restarts, power: 1 - x,
    "polynomial": lambda x, restarts, power: (1 - x) ** power,
    "constant_with_warmup": lambda x, restarts, power: 1.0,
    "constant": lambda x, restarts, power: 1.0,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_each_step_has_the_rate_of_the_closed_form(name: str, warmup: int) -> None:
    total, restarts, power = 50, 3, 2.5
    start = 0 if name == "constant" else warmup
    for step, rate in enumerate(rates(name, total, warmup, restarts, power)):
        progress = (step - start) / (total - start)
        # A restart falls between two steps or on one; there the last rate and the first are both right.
        expected = step / start if step < start else CLOSED_FORMS[name](progress, restarts, power)
        assert rate / RATE == pytest.approx(expected, abs=1e-9), step


def test_the_table_is_complete() -> None:
    assert set(SCHEDULES) == set(CLOSED_FORMS) == set(SETTINGS["schedule"].choices)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"constant"}))
def test_a_tenth_of_warm_up_reaches_the_rate_at_step_100_of_1000(name: str) -> None:
    seen = rates(name, 1000, warmup=100)
    assert seen[0] == 0
    assert seen[50] == pytest.approx(RATE / 2)
    assert seen[99] < RATE
    assert seen[100] == pytest.approx(RATE, rel=1e-12)


def test_restarts_begin_again_at_the_full_rate() -> None:
    seen = rates("cosine_with_restarts", 100, restarts=4)
    assert [step for step, rate in enumerate(seen) if rate == pytest.approx(RATE)] == [0, 25, 50, 75]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    total=st.integers(1, 30),
    share=st.floats(0, 1),
    restarts=st.integers(1, 100),
    power=st.floats(0.1, 9),
)
def test_no_rate_leaves_its_bounds(name: str, total: int, share: float, restarts: int, power: float) -> None:
    for rate in rates(name, total, round(share * total), restarts, power):
        assert 0 <= rate <= RATE * (1 + 1e-9)


def test_each_group_has_its_own_rate_scaled() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": rate} for rate in (1e-4, 5e-5)]
    optimizer = build_optimizer("AdamW", groups)
    schedule = build_schedule("linear", optimizer, 10)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-5, 2.5e-5])


@pytest.mark.parametrize("optimizer", ["ScheduleFreeAdamW", "ProdigyPlusScheduleFree"])
@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_a_schedule_free_optimizer_keeps_its_rate(optimizer: str, name: str) -> None:
    assert rates(name, 20, optimizer=optimizer) == [RATE] * 20
    warmed = rates(name, 20, warmup=4, optimizer=optimizer)
    assert warmed[:4] == pytest.approx([0, RATE / 4, RATE / 2, RATE * 3 / 4])
    assert warmed[4:] == [RATE] * 16


def test_adafactor_with_relative_steps_is_left_alone() -> None:
    assert rates("cosine", 10, warmup=3, optimizer="Adafactor") == [RATE] * 10
    scheduled = rates("cosine", 10, warmup=3, optimizer="Adafactor", args=("relative_step=False",))
    assert scheduled[0] == 0 and scheduled[9] < RATE / 2


@pytest.mark.parametrize("optimizer", ["ScheduleFreeAdamW", "ProdigyPlusScheduleFree", "Prodigy"])
def test_a_first_rate_of_zero_does_no_harm(optimizer: str) -> None:
    parameter = nn.Parameter(torch.ones(8))
    built = build_optimizer(optimizer, [{"params": [parameter], "lr": 1.0 if "Prodigy" in optimizer else 0.05}])
    schedule = build_schedule("cosine", built, 300, warmup_steps=5)
    for _ in range(200):
        built.zero_grad()
        (parameter**2).sum().backward()
        built.step()
        schedule.step()
    assert parameter.isfinite().all() and (parameter < 0.9).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_goes_on_from_its_state(name: str) -> None:
    def pair() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = build_optimizer("AdamW", [{"params": [nn.Parameter(torch.zeros(2))], "lr": RATE}])
        return optimizer, build_schedule(name, optimizer, 40, 5, 2, 2.0)

    optimizer, schedule = pair()
    for _ in range(17):
        optimizer.step()
        schedule.step()
    resumed_optimizer, resumed = pair()
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(10):
        for each in (optimizer, schedule, resumed_optimizer, resumed):
            each.step()
        assert resumed.get_last_lr() == schedule.get_last_lr()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    optimizer = build_optimizer("AdamW", [{"params": [nn.Parameter(torch.zeros(2))], "lr": RATE}])
    with pytest.raises(BadInput, match=r"Did you mean cosine_with_restarts\?"):
        build_schedule("cosine_restarts", optimizer, 10)

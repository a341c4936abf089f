from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lora_trainer.config import SETTINGS, BadInput
from lora_trainer.training import optimizers
from lora_trainer.training.optimizers import (
    OPTIMIZERS,
    averaged_weights,
    build_optimizer,
    effective_rates,
    is_schedule_free,
    sets_its_own_rate,
)

RATE_FREE = ("DAdaptation", "DAdaptAdam", "Prodigy", "ProdigyPlusScheduleFree")
SCHEDULE_FREE = ("ScheduleFreeAdamW", "ProdigyPlusScheduleFree")
EIGHT_BIT = ("AdamW8bit", "Lion8bit", "PagedAdamW8bit")

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")


def rate_of(name: str) -> float:
    return 1.0 if name in RATE_FREE else 1e-2


class Quadratic:
    """A LoRA's two matrices, up starting at zero, drawn to fixed targets; large enough for 8-bit states."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)
        self.down = nn.Parameter(0.1 * torch.randn(64, 96, generator=generator).to(dtype))
        self.up = nn.Parameter(torch.zeros(96, 64, dtype=dtype))
        # Nowhere near the start: a gradient near 0 would make an adaptive step a matter of rounding.
        signs = [torch.randn(p.shape, generator=generator).sign() for p in self.parameters()]
        self.targets = [sign.to(dtype) * torch.linspace(1, 2, sign.numel()).view_as(sign).to(dtype) for sign in signs]

    def parameters(self) -> list[nn.Parameter]:
        return [self.down, self.up]

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": [parameter], "lr": rate} for parameter in self.parameters()]

    def loss(self) -> torch.Tensor:
        return torch.stack([((p - target) ** 2).mean() for p, target in zip(self.parameters(), self.targets)]).sum()

    def run(self, optimizer: torch.optim.Optimizer, steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss().backward()
            optimizer.step()
        return self.loss().item()

    def copy(self) -> Quadratic:
        twin = Quadratic(self.down.dtype)
        with torch.no_grad():
            for own, other in zip(twin.parameters(), self.parameters()):
                own.copy_(other)
        return twin


def built(name: str, problem: Quadratic, args: tuple[str, ...] = ()) -> torch.optim.Optimizer:
    try:
        return build_optimizer(name, problem.groups(rate_of(name)), args)
    except BadInput as error:
        if name in EIGHT_BIT and "does not run on this device" in str(error):
            pytest.skip(str(error))  # bitsandbytes below 0.50 has no CPU kernels
        raise


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lowers_a_quadratic(name: str) -> None:
    problem = Quadratic()
    before = problem.loss().item()
    optimizer = built(name, problem)
    problem.run(optimizer, 150)
    with averaged_weights(optimizer):
        assert problem.loss().item() < 0.9 * before


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_from_its_state_as_if_unbroken(name: str) -> None:
    problem = Quadratic()
    optimizer = built(name, problem)
    problem.run(optimizer, 12)
    with averaged_weights(optimizer):
        pass
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = problem.copy()
    second = built(name, resumed)
    second.load_state_dict(torch.load(file, weights_only=True))
    problem.run(optimizer, 12)
    resumed.run(second, 12)
    assert torch.equal(problem.down, resumed.down) and torch.equal(problem.up, resumed.up)


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_averaged_weights_differ_and_go_back_exactly(name: str) -> None:
    problem = Quadratic()
    optimizer = built(name, problem)
    problem.run(optimizer, 40)
    during_training = problem.down.detach().clone()
    with averaged_weights(optimizer):
        assert not torch.equal(problem.down, during_training)
    assert torch.equal(problem.down, during_training)
    problem.run(optimizer, 1)  # Refused by the optimizer if it were not back in training mode.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_the_schedule_free_have_averaged_weights(name: str) -> None:
    problem = Quadratic()
    optimizer = built(name, problem)
    assert is_schedule_free(optimizer) == (name in SCHEDULE_FREE)
    problem.run(optimizer, 2)
    during_training = problem.down.detach().clone()
    if name not in SCHEDULE_FREE:
        with averaged_weights(optimizer):
            assert torch.equal(problem.down, during_training)


def test_prodigy_plus_without_its_averaging_has_none() -> None:
    assert not is_schedule_free(built("ProdigyPlusScheduleFree", Quadratic(), ("use_schedulefree=False",)))


ORIGINALS: list[tuple[str, str, tuple[str, ...], dict[str, Any]]] = [
    ("Lion", "lion_pytorch.Lion", (), {}),
    ("Lion", "lion_pytorch.Lion", ("weight_decay=0.1",), {"weight_decay": 0.1}),
    ("Prodigy", "prodigyopt.Prodigy", (), {}),
    (
        "Prodigy",
        "prodigyopt.Prodigy",
        ("decouple=True", "use_bias_correction=True", "safeguard_warmup=True", "d_coef=2", "weight_decay=0.01"),
        {"use_bias_correction": True, "safeguard_warmup": True, "d_coef": 2, "weight_decay": 0.01},
    ),
    ("DAdaptAdam", "pytorch_optimizer.DAdaptAdam", (), {}),
    ("ScheduleFreeAdamW", "schedulefree.AdamWScheduleFree", (), {}),
    ("ScheduleFreeAdamW", "schedulefree.AdamWScheduleFree", ("weight_decay=0.1",), {"weight_decay": 0.1}),
    ("ScheduleFreeAdamW", "schedulefree.AdamWScheduleFree", ("warmup_steps=10",), {"warmup_steps": 10}),
    ("Adafactor", "pytorch_optimizer.AdaFactor", (), {"betas": (None, 0.999)}),
    (
        "Adafactor",
        "pytorch_optimizer.AdaFactor",
        ("relative_step=False",),
        {"betas": (None, 0.999), "relative_step": False},
    ),
]


@pytest.mark.parametrize(("name", "original", "args", "options"), ORIGINALS)
def test_follows_another_implementation(
    name: str, original: str, args: tuple[str, ...], options: dict[str, Any]
) -> None:
    module, _, attribute = original.rpartition(".")
    constructor = getattr(pytest.importorskip(module), attribute)
    ours, theirs = Quadratic(torch.float64), Quadratic(torch.float64)
    first = built(name, ours, args)
    second = constructor(theirs.groups(rate_of(name)), lr=rate_of(name), **options)
    if hasattr(second, "train"):
        second.train()
    ours.run(first, 60)
    theirs.run(second, 60)
    assert ours.up.abs().max() > 1e-4
    for own, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(own, other, rtol=0, atol=5e-5)


def test_adamw_in_closed_form() -> None:
    """The first step of AdamW is the rate times the gradient's sign, after the decay."""
    parameter = nn.Parameter(torch.tensor([2.0, -3.0]))
    optimizer = build_optimizer("AdamW", [{"params": [parameter], "lr": 0.1}], ("weight_decay=0.5",))
    parameter.grad = torch.tensor([4.0, -0.2])
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([2.0 * 0.95 - 0.1, -3.0 * 0.95 + 0.1]))


def test_each_group_keeps_its_rate() -> None:
    problem = Quadratic()
    groups = problem.groups(1e-4)
    groups[1]["lr"] = 5e-5
    assert [group["lr"] for group in build_optimizer("AdamW", groups).param_groups] == [1e-4, 5e-5]


@pytest.mark.parametrize("name", ["DAdaptation", "DAdaptAdam", "Prodigy"])
def test_one_step_size_for_all_refuses_several_rates(name: str) -> None:
    groups = Quadratic().groups(1.0)
    groups[1]["lr"] = 0.5
    with pytest.raises(BadInput, match=r"1\.0, 0\.5.*ProdigyPlusScheduleFree"):
        build_optimizer(name, groups)


def test_prodigy_plus_takes_several_rates() -> None:
    problem = Quadratic()
    groups = problem.groups(1.0)
    groups[1]["lr"] = 0.5
    before = problem.loss().item()
    assert problem.run(build_optimizer("ProdigyPlusScheduleFree", groups), 100) < before


def test_effective_rates_hold_the_estimate() -> None:
    problem = Quadratic()
    optimizer = built("Prodigy", problem)
    assert effective_rates(optimizer) == [1e-6, 1e-6]
    problem.run(optimizer, 20)
    assert effective_rates(optimizer)[0] > 1e-5
    assert effective_rates(built("AdamW", problem)) == [1e-2, 1e-2]


@pytest.mark.parametrize(
    ("args", "own"),
    [
        ((), True),
        (("relative_step=False",), False),
        (("relative_step=False", "warmup_init=True"), True),
        (("warmup_init=False",), True),
    ],
)
def test_adafactor_sets_its_own_rate_unless_told_otherwise(args: tuple[str, ...], own: bool) -> None:
    problem = Quadratic()
    optimizer = built("Adafactor", problem, args)
    assert sets_its_own_rate(optimizer) == own
    problem.run(optimizer, 3)


def test_adafactors_own_rate_does_not_depend_on_the_one_given() -> None:
    first, second = Quadratic(), Quadratic()
    first.run(build_optimizer("Adafactor", first.groups(1e-4)), 5)
    second.run(build_optimizer("Adafactor", second.groups(1.0)), 5)
    assert torch.equal(first.down, second.down)


def test_adafactors_first_step_in_closed_form() -> None:
    """With one vector of a gradient's size everywhere, the update is the gradient's sign: rate * rms * sign."""
    parameter = nn.Parameter(torch.full((4,), 2.0))
    optimizer = build_optimizer("Adafactor", [{"params": [parameter], "lr": 1e-3}])
    parameter.grad = torch.tensor([0.3, -0.3, 0.3, 0.3])
    optimizer.step()
    step = 0.01 * 2.0
    torch.testing.assert_close(parameter.detach(), torch.tensor([2 - step, 2 + step, 2 - step, 2 - step]))
    assert effective_rates(optimizer) == [0.01]


@pytest.mark.parametrize(("steps", "rate"), [(4, 4e-6), (7, 7e-6)])
def test_adafactors_warm_up_is_reported(steps: int, rate: float) -> None:
    problem = Quadratic()
    optimizer = built("Adafactor", problem, ("warmup_init=True",))
    problem.run(optimizer, steps)
    assert effective_rates(optimizer) == pytest.approx([rate, rate])


def test_arguments_are_read_as_values() -> None:
    args = ("betas=0.9, 0.95", "eps=1e-6", "amsgrad=true", "foreach = None")
    group = built("AdamW", Quadratic(), args).param_groups[0]
    assert (group["betas"], group["eps"], group["amsgrad"], group["foreach"]) == ((0.9, 0.95), 1e-6, True, None)


def test_every_wrong_argument_is_reported_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        built("AdamW", Quadratic(), ("weight_deacy=0.1", "eps", "betas=__import__('os')", "lr=3"))
    sentences = [str(problem) for problem in caught.value.problems]
    assert len(sentences) == 4
    assert "weight_decay?" in sentences[0]
    assert "key=value" in sentences[1]
    assert "no value" in sentences[2]
    assert "no argument lr" in sentences[3]


@pytest.mark.parametrize(
    ("name", "arg"), [("AdamW", "betas=5"), ("CAME", "betas=0.9,0.99"), ("Lion", "weight_decay=-1")]
)
def test_a_value_the_optimizer_refuses_is_reported(name: str, arg: str) -> None:
    with pytest.raises(BadInput, match="optimizer_args = .*refuses it"):
        problem = Quadratic()
        problem.run(built(name, problem, (arg,)), 1)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadInput, match="Did you mean Prodigy?"):
        build_optimizer("prodgy", Quadratic().groups(1.0))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dadaptation", None)
    monkeypatch.setitem(sys.modules, "dadaptation.experimental", None)
    with pytest.raises(BadInput, match="needs the package dadaptation"):
        build_optimizer("DAdaptation", Quadratic().groups(1.0))


def test_eight_bit_without_bitsandbytes_offers_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    for name, offer in (("AdamW8bit", "AdamW"), ("PagedAdamW8bit", "AdamW"), ("Lion8bit", "Lion")):
        with pytest.raises(BadInput, match=f"needs the package bitsandbytes.*choose {offer}\\."):
            build_optimizer(name, Quadratic().groups(1e-4))


def test_bitsandbytes_that_does_not_run_here_offers_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutKernels(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            raise NotImplementedError("no kernel for 'cpu'.")

    monkeypatch.setattr(optimizers, "_constructor", lambda name, recipe: WithoutKernels)
    with pytest.raises(BadInput, match=r"does not run on this device \(cpu\).*no kernel for 'cpu'\). Choose AdamW\."):
        build_optimizer("AdamW8bit", Quadratic().groups(1e-4))


@pytest.mark.parametrize("name", ["DAdaptation", "ProdigyPlusScheduleFree"])
def test_standard_output_stays_clean(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("decouple=True",) if name == "DAdaptation" else ()
    parameter = nn.Parameter(torch.ones(2))
    build_optimizer(name, [{"params": [parameter], "lr": 1.0}], args)
    assert capsys.readouterr().out == ""


def test_the_names_are_the_settings_choices() -> None:
    assert set(SETTINGS["optimizer"].choices) == set(OPTIMIZERS)

"""The optimizers by name, built from kept libraries, and the few things that a loop must know about them."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from lora_trainer.config import BadInput, Problem
from lora_trainer.training.choices import chosen, suggestion

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """Where an optimizer comes from. `aliases` maps its original's argument names to this library's."""

    module: str
    name: str
    aliases: dict[str, str] = field(default_factory=dict)
    # One step size is estimated for all parameters, so that groups cannot have rates of their own.
    one_rate: bool = False

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


OPTIMIZERS: dict[str, Recipe] = {
    "AdamW": Recipe("torch.optim", "AdamW"),
    "AdamW8bit": Recipe("bitsandbytes.optim", "AdamW8bit"),
    "Adafactor": Recipe("transformers.optimization", "Adafactor"),
    "Lion": Recipe("pytorch_optimizer", "Lion", {"decoupled_weight_decay": "weight_decouple"}),
    "DAdaptation": Recipe("dadaptation.experimental", "DAdaptAdamPreprint", one_rate=True),
    "DAdaptAdam": Recipe("dadaptation", "DAdaptAdam", one_rate=True),
    "Prodigy": Recipe(
        "pytorch_optimizer",
        "Prodigy",
        {"decouple": "weight_decouple", "use_bias_correction": "bias_correction"},
        one_rate=True,
    ),
    "Lion8bit": Recipe("bitsandbytes.optim", "Lion8bit"),
    "PagedAdamW8bit": Recipe("bitsandbytes.optim", "PagedAdamW8bit"),
    "CAME": Recipe("pytorch_optimizer", "CAME"),
    "ScheduleFreeAdamW": Recipe("pytorch_optimizer", "ScheduleFreeAdamW"),
    "ProdigyPlusScheduleFree": Recipe("prodigyplus", "ProdigyPlusScheduleFree"),
}


def build_optimizer(name: str, groups: Groups, args: Sequence[str] = ()) -> Optimizer:
    """The optimizer of that name over parameter groups {"params": [...], "lr": rate}, in training mode.

    `args` are "key=value" lines for its constructor, under the names of this library or of the optimizer's original.
    Raises BadInput for an unknown name or argument, a value the optimizer refuses, a missing library, a bitsandbytes
    that does not run on the parameters' device, and groups of different rates where only one is possible.
    """
    recipe = chosen(OPTIMIZERS, name, "optimizer")
    constructor = _constructor(name, recipe)
    options = _options(recipe, constructor, args)
    groups = [{**group, "params": list(group["params"])} for group in groups]
    if recipe.one_rate and len({group["lr"] for group in groups}) > 1:
        raise BadInput(_differing_rates(name, groups))
    device = groups[0]["params"][0].device
    # Some of them print, and standard output belongs to --json.
    with redirect_stdout(sys.stderr):
        if recipe.package == "bitsandbytes":
            _try_device(name, constructor, device)
        _try_options(constructor, options, args, device)
        optimizer = _constructed(constructor, groups, options)
        if is_schedule_free(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
    return optimizer


def is_schedule_free(optimizer: Optimizer) -> bool:
    """True if saves and previews need the averaged weights that `averaged_weights` gives."""
    return any("train_mode" in group and group.get("use_schedulefree", True) for group in optimizer.param_groups)


def sets_its_own_rate(optimizer: Optimizer) -> bool:
    """True for Adafactor with relative steps, which reads neither the groups' rates nor a schedule."""
    return any(group.get("relative_step", False) for group in optimizer.param_groups)


@contextmanager
def averaged_weights(optimizer: Optimizer) -> Iterator[None]:
    """While open, the parameters are those to save and to draw previews with; afterwards exactly what they were.

    Does nothing unless the optimizer is schedule-free. The way back by the optimizer's own `train()` is rounded, and a
    run with more saves would end with other weights: the parameters are kept and put back instead.
    """
    if not is_schedule_free(optimizer):
        yield
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        optimizer.train()  # type: ignore[attr-defined]
        with torch.no_grad():
            for parameter, value in zip(parameters, kept):
                parameter.copy_(value)


def effective_rates(optimizer: Optimizer) -> list[float]:
    """Each group's step size, for logs: its rate, times the estimate `d` of D-Adaptation and Prodigy.

    With relative steps it is Adafactor's own, before it is scaled by the size of each parameter.
    """
    if sets_its_own_rate(optimizer):
        return [_relative_step(optimizer, group) for group in optimizer.param_groups]
    return [float(group["lr"]) * float(group.get("d", 1.0)) for group in optimizer.param_groups]


def _relative_step(optimizer: Optimizer, group: dict[str, Any]) -> float:
    """min(0.01, 1 / sqrt(step)), the first bound being 1e-6 * step in a warm-up (Shazeer and Stern 2018)."""
    step = optimizer.state.get(group["params"][0], {}).get("step", 0)
    bound = 1e-6 * step if group["warmup_init"] else 1e-2
    return float(min(bound, max(1, step) ** -0.5))


def _constructor(name: str, recipe: Recipe) -> Any:
    try:
        return getattr(importlib.import_module(recipe.module), recipe.name)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        problem = f"needs the package {recipe.package}, which cannot be used here ({_first_line(error)})"
        raise BadInput(Problem("optimizer", name, problem, f"Install it, or choose {_offer(name)}.")) from error


def _options(recipe: Recipe, constructor: Any, args: Iterable[str]) -> dict[str, Any]:
    """The constructor's keyword arguments; all wrong ones are reported together."""
    parameters = list(inspect.signature(constructor).parameters.values())
    known = [
        each.name for each in parameters if each.kind is not each.VAR_KEYWORD and each.name not in ("params", "lr")
    ]
    options, problems = {}, []
    for arg in args:
        key, equals, text = (part.strip() for part in arg.partition("="))
        key = recipe.aliases.get(key, key)
        if not equals:
            problems.append(_problem(arg, "has no =", "Write it as key=value, such as weight_decay=0.01."))
        elif key not in known:
            problems.append(_problem(arg, f"{recipe.name} has no argument {key}", suggestion(key, known)))
        else:
            try:
                options[key] = _value(text)
            except (ValueError, SyntaxError):
                problems.append(_problem(arg, f"{text!r} is no value", "Use a number, True, False, None, or 0.9,0.99."))
    if problems:
        raise BadInput(problems)
    if recipe.name == "Adafactor":
        # Relative steps unless they are refused, and always with their warm-up, as sd-scripts has it.
        options["relative_step"] = bool(options.get("relative_step", True) or options.get("warmup_init", False))
    return options


def _value(text: str) -> Any:
    return ast.literal_eval(text.capitalize() if text.lower() in ("true", "false", "none") else text)


def _constructed(constructor: Any, groups: Groups, options: dict[str, Any]) -> Optimizer:
    relative = options.get("relative_step", False)
    given = [{**group, "lr": None} for group in groups] if relative else groups
    optimizer: Optimizer = constructor(given, lr=None if relative else groups[0]["lr"], **options)
    for group, asked in zip(optimizer.param_groups, groups):
        group["lr"] = asked["lr"]  # Not read with relative steps, but a schedule must find a number.
    return optimizer


def _try_device(name: str, constructor: Any, device: torch.device) -> None:
    """Whether bitsandbytes runs on a device depends on its version and on its build: one step tells."""
    try:
        _one_step(constructor, {}, device)
    except (RuntimeError, AttributeError, NameError, TypeError, ValueError) as error:
        problem = f"does not run on this device ({device.type}) with the bitsandbytes installed ({_first_line(error)})"
        raise BadInput(Problem("optimizer", name, problem, f"Choose {_offer(name)}.")) from error


def _try_options(constructor: Any, options: dict[str, Any], args: Sequence[str], device: torch.device) -> None:
    """Some optimizers read their arguments in the first step only: better refused here than after a model is loaded."""
    try:
        _one_step(constructor, options, device)
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        problem = f"{constructor.__name__} refuses it ({_first_line(error)})"
        raise BadInput(_problem(" ".join(args), problem, "Correct the value, or leave it out.")) from error


def _one_step(constructor: Any, options: dict[str, Any], device: torch.device) -> None:
    """A step on a throw-away parameter that is large enough for 8-bit states."""
    parameter = torch.nn.Parameter(torch.zeros(64, 64, device=device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = _constructed(constructor, [{"params": [parameter], "lr": 1e-4}], options)
    if is_schedule_free(optimizer):
        optimizer.train()  # type: ignore[attr-defined]
    optimizer.step()


def _offer(name: str) -> str:
    plain = name.removeprefix("Paged").removesuffix("8bit")
    return plain if plain != name and plain in OPTIMIZERS else "AdamW"


def _differing_rates(name: str, groups: Groups) -> Problem:
    rates = ", ".join(str(rate) for rate in dict.fromkeys(group["lr"] for group in groups))
    remedy = "Give all parts one rate, such as 1, without weights by block, or use ProdigyPlusScheduleFree."
    return Problem(
        "optimizer", name, f"estimates one step size for all and cannot have several rates ({rates})", remedy
    )


def _problem(value: object, problem: str, remedy: str) -> Problem:
    return Problem("optimizer_args", value, problem, remedy)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

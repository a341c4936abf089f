"""What turns gradients into better weights: optimizer, schedule, clipping, and the scaler of fp16."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lora_trainer.config import Config
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.lora import LoraNetwork
from lora_trainer.training.models import Models
from lora_trainer.training.optimizers import averaged_weights, build_optimizer, effective_rates
from lora_trainer.training.plan import Plan
from lora_trainer.training.schedules import build_schedule


def build_learner(plan: Plan, models: Models, scaled: bool, device: torch.device) -> Learner:
    """`scaled`: multiply losses so that fp16 gradients do not vanish."""
    config = plan.config
    groups = parameter_groups(models.network, config)
    leave_alone_what_is_not_in(groups, models.network)
    optimizer = build_optimizer(optimizer_of(config, device), groups, config.optimizer_args)
    schedule = build_schedule(
        config.schedule,
        optimizer,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        restarts=config.restarts,
        power=config.power,
    )
    scaler = torch.amp.GradScaler(device.type, enabled=scaled) if scaled else None
    return Learner(models.network, optimizer, schedule, scaler, config.gradient_clipping, config.scale_weight_norms)


def optimizer_of(config: Config, device: torch.device) -> str:
    """The name of the optimizer that the settings come to on this device."""
    return config.optimizer or ("AdamW8bit" if device.type == "cuda" else "AdamW")


def parameter_groups(network: LoraNetwork, config: Config) -> list[dict[str, Any]]:
    """One group for each distinct rate, without the layers of rate 0: some optimizers take one rate only."""
    groups: dict[float, list[nn.Parameter]] = {}
    for key, layer in network.layers.items():
        rate = rate_of(key, config) * network.lr_weights[key]
        groups.setdefault(rate, []).extend(layer.weights())
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items() if rate]


def leave_alone_what_is_not_in(groups: Sequence[Mapping[str, Any]], network: LoraNetwork) -> None:
    """Parameters of rate 0 get no gradients, which nobody would clear and which would count where they are clipped."""
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trained)


def rate_of(key: str, config: Config) -> float:
    """The learning rate of a layer by its key: `lora_te`, `lora_te1` and `lora_te2` are text encoders."""
    if key.startswith("lora_unet"):
        return _first(config.unet_lr, config.learning_rate)
    rates = _first(config.text_encoder_lr, config.learning_rate)
    return rates if isinstance(rates, (int, float)) else rates[key.startswith("lora_te2")]


class Learner:
    """`parameters` are those of the LoRA that are trained, float32; their gradients may be scaled until `step`.

    `whole`: false while `step` changes them, and after one that did not come to its end.
    """

    def __init__(
        self, network: LoraNetwork, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler,
        scaler: Any, clipping: float, longest_norm: float,
    ):  # fmt: skip
        self._network, self._optimizer, self._schedule, self._scaler = network, optimizer, schedule, scaler
        self._clipping, self._longest_norm = clipping, longest_norm
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.whole = True

    def backward(self, loss: Tensor) -> None:
        (self._scaler.scale(loss) if self._scaler else loss).backward()

    def sum_gradients(self, accelerator: Accelerator) -> None:
        """Adds up the gradients of all processes, in one message: a LoRA's are a few megabytes."""
        with torch.no_grad():
            flat = torch.cat([_gradient(parameter).flatten() for parameter in self.parameters])
            flat = accelerator.reduce(flat, "sum")
            sizes = [parameter.numel() for parameter in self.parameters]
            for parameter, gradient in zip(self.parameters, flat.split(sizes)):
                parameter.grad = gradient.view_as(parameter).clone()

    def step(self) -> None:
        """Clips, steps and clears. TrainingFailed if a gradient is not finite (fp16's scaler skips such a step)."""
        self.whole = False
        if self._scaler:
            self._scaler.unscale_(self._optimizer)
        if self._clipping:
            norm = float(nn.utils.clip_grad_norm_(self.parameters, self._clipping))
            if not math.isfinite(norm) and not self._scaler:
                raise TrainingFailed(
                    "A gradient is not finite, although the loss is; the last good save is kept.",
                    "Lower the learning rate, or train without mixed precision, and start again.",
                    "nan",
                )
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._longest_norm:
            self._network.limit_norms(self._longest_norm)
        self.whole = True

    def forget_gradients(self) -> None:
        """Of a step that is to be taken again."""
        for parameter in self.parameters:
            parameter.grad = None

    def begin_anew(self, other: Learner) -> None:
        """Becomes as `other`, which has just been built for the same network: it remembers no step."""
        self._optimizer, self._schedule, self._scaler = other._optimizer, other._schedule, other._scaler
        self.whole = True

    def exchange_optimizer(self, other: Learner) -> None:
        """`other`'s optimizer from here on, at the same place of the schedule."""
        state = self.state()
        self.begin_anew(other)
        self.load_state(**state)

    @property
    def optimizer_name(self) -> str:
        """As sd-scripts records it, such as `torch.optim.adamw.AdamW`."""
        kind = type(self._optimizer)
        return f"{kind.__module__}.{kind.__qualname__}"

    def rates(self) -> list[float]:
        """The step size of each group, as the optimizer applies it."""
        return effective_rates(self._optimizer)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """While open, the weights are those to save and to draw with (schedule-free optimizers keep an average)."""
        return averaged_weights(self._optimizer)

    def state(self) -> dict[str, Any]:
        """What a `State` holds of it, and `load_state` takes."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict() if self._scaler else {},
            "optimizer_name": self.optimizer_name,
        }

    def load_state(
        self, optimizer: dict[str, Any], schedule: dict[str, Any], scaler: dict[str, Any], optimizer_name: str = ""
    ) -> None:
        """Goes on from a state. One of another optimizer gives the place in the schedule only."""
        self._schedule.load_state_dict(schedule)
        if optimizer_name in ("", self.optimizer_name):
            self._optimizer.load_state_dict(optimizer)
        else:
            for group, rate in zip(self._optimizer.param_groups, self._schedule.get_last_lr()):
                group["lr"] = rate
        if self._scaler:
            self._scaler.load_state_dict(scaler)


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad

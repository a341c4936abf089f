"""What learns, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lora_trainer.config import Config
from lora_trainer.jobs.events import silent
from lora_trainer.training.device import choose_precision
from lora_trainer.training.learning import build_learner
from lora_trainer.training.models import load_models
from lora_trainer.training.plan import make_plan

CPU = torch.device("cpu")


def test_a_layer_of_rate_0_gets_no_gradient_and_so_has_no_part_in_clipping(config_of: Callable[..., Config]) -> None:
    plan = make_plan(config_of(train="both", text_encoder_lr=0.0))
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    models.initialise_network()
    learner = build_learner(plan, models, scaled=False, device=CPU)
    layers = models.network.layers.items()
    left_alone = [each for key, layer in layers if key.startswith("lora_te") for each in layer.weights()]
    assert left_alone and len(learner.parameters) + len(left_alone) == len(models.network.parameters())
    noisy, timesteps, sizes = torch.randn(1, 4, 8, 8), torch.tensor([500]), torch.zeros(1, 6)
    learner.backward(models.denoise(noisy, timesteps, models.texts([plan.pictures[0].caption]), sizes).square().mean())
    assert all(parameter.grad is None for parameter in left_alone)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in learner.parameters)

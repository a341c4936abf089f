"""What `peer_draws.py` injects into sd-scripts' Flux: each sample's own draws, and the sizes of small models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benchmarks.peer_draws import Run, take_latents, theirs
from lora_trainer.training.randomness import generator_for


def take_draws(run: Run) -> None:
    """Latents, noise and noise levels."""
    script, drawing = theirs("flux_train_network"), Drawing(run)
    take_latents(run, theirs("library.strategy_flux").FluxLatentsCachingStrategy, script.FluxNetworkTrainer)
    script.torch = theirs("library.flux_train_utils").torch = drawing


class Drawing:
    """Stands for torch in sd-scripts' Flux: what it draws for a batch is drawn sample by sample, as ours is.

    A sample's noise and what perturbs it come from one source, its noise level from another.
    """

    def __init__(self, run: Run):
        self._run = run
        self._place: tuple[int, int] | None = None
        self._noise: list[torch.Generator] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def randn_like(self, latents: torch.Tensor, **_: Any) -> torch.Tensor:
        if self._place != self._run.place:
            self._place, self._noise = self._run.place, self._sources("noise", len(latents))
        return torch.stack([torch.randn(each.shape, generator=source) for each, source in zip(latents, self._noise)])

    def randn(self, size: Any, **_: Any) -> torch.Tensor:
        return torch.stack([torch.randn((), generator=source) for source in self._sources("timestep", count_of(size))])

    def rand(self, size: Any, **_: Any) -> torch.Tensor:
        return torch.stack([torch.rand((), generator=source) for source in self._sources("timestep", count_of(size))])

    def _sources(self, kind: str, count: int) -> list[torch.Generator]:
        place = self._run.place
        return [generator_for(self._run.seed, kind, *place, position) for position in range(count)]


def count_of(size: Any) -> int:
    return size if isinstance(size, int) else size[0]


def shrink_models(sizes: dict[str, Any]) -> None:
    """Sets what sd-scripts' modules hold as constants to `flux_base`'s sizes; the number of blocks it reads itself."""
    flux_models, flux_utils = theirs("library.flux_models"), theirs("library.flux_utils")
    for spec in flux_models.configs.values():
        spec.params = replace(spec.params, **sizes["transformer"])
        spec.ae_params = replace(spec.ae_params, **sizes["ae"])
    flux_utils.T5Config = small(flux_utils.T5Config, sizes["t5xxl"])
    flux_utils.CLIPConfig = small(flux_utils.CLIPConfig, sizes["clip_l"])


def small(config: Any, sizes: dict[str, Any]) -> Any:
    """A maker of transformers' `config` that takes these sizes, whatever is asked for."""
    return lambda **facts: config(**{**facts, **sizes})

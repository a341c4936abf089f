"""Which modules of a run get a LoRA, and of which rank, alpha and rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from lora_trainer.config import Config
from lora_trainer.config.block_choice import chosen_blocks
from lora_trainer.training.blocks import FLUX, block_count, block_of, block_weights
from lora_trainer.training.families import Family
from lora_trainer.training.lora import Target
from lora_trainer.training.plan import Plan, filled


def targets(plan: Plan, family: Family, unet: nn.Module, encoders: Any) -> list[Target]:
    """Every module that gets a LoRA: the text encoders', then the U-Net's. A block of rank or rate 0 gets none.

    `encoders`: a family's, or None.
    """
    config, alpha, found = plan.config, filled(plan.config.alpha), []
    if config.train != "unet" and encoders is not None:
        for place, encoder in enumerate(encoders.encoders):
            names = family.text_encoder_targets(encoder, place)
            found += [Target(encoder, module, key, config.rank, alpha) for module, key in names.items()]
    if config.train != "text_encoder":
        blocks = Blocks(config, plan.base.family)
        names = family.denoiser_targets(unet, convolutions=config.kind != "LoRA" and config.conv_rank > 0)
        is_chosen = block_choice(config, unet)
        found += [
            Target(unet, module, key, *blocks.rank_and_alpha(module, unet.get_submodule(module)), blocks.weight(module))
            for module, key in names.items()
            if is_chosen(module)
        ]
    return [target for target in found if target.rank and target.lr_weight]


def block_choice(config: Config, unet: nn.Module) -> Callable[[str], bool]:
    """Whether a module, by its name, is in one of Flux's blocks that are to be trained; true of a U-Net's."""
    chosen = {
        kind: chosen_blocks(getattr(config, f"{kind}_blocks"), len(blocks))
        for kind in ("double", "single")
        if isinstance(blocks := getattr(unet, f"{kind}_blocks", None), nn.ModuleList)
    }

    def is_chosen(module: str) -> bool:
        block = FLUX.search(module)
        return block is None or int(block[2]) in chosen[block[1]]

    return is_chosen


class Blocks:
    """Ranks, alphas and rate weights of the modules of a U-Net or of Flux, block by block or one for all."""

    def __init__(self, config: Config, family: str):
        self._config, self._family = config, family
        ranks = config.block_ranks if config.block_wise and config.block_ranks else None
        self._ranks = ranks or (config.rank,) * block_count(family)
        alphas = config.block_alphas if ranks and config.block_alphas else None
        ratio = filled(config.alpha) / config.rank
        self._alphas = alphas or tuple(rank * ratio for rank in self._ranks)
        shape = config.block_lr_weights if config.block_wise else None
        self._weights = block_weights("flat" if shape is None else shape, family)

    def rank_and_alpha(self, name: str, module: nn.Module) -> tuple[int, float]:
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            return self._config.conv_rank, filled(self._config.conv_alpha)
        block = block_of(name, self._family) or 0
        return self._ranks[block], self._alphas[block]

    def weight(self, name: str) -> float:
        return self._weights[block_of(name, self._family) or 0]

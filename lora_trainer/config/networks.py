"""The networks in sd-scripts' words: the blocks they count, the module that makes each kind, and its arguments."""

from __future__ import annotations

from typing import Any

from lora_trainer.config.settings import WITH_CONVOLUTIONS, Config

FLUX_BLOCKS = {"double_blocks": 19, "single_blocks": 38}
BLOCKS = {  # of a U-Net: down, mid, up; of Flux: double, none between, single
    "sd15": (12, 1, 12),
    "sd2": (12, 1, 12),
    "sdxl": (9, 3, 9),
    "flux": (FLUX_BLOCKS["double_blocks"], 0, FLUX_BLOCKS["single_blocks"]),
}

# What makes a kind of LyCORIS's network. DoRA's lengths stand for inputs: the one form that both WebUIs apply rightly.
LYCORIS_ARGS = {
    "LoHa": {"algo": "loha"},
    "LoKr": {"algo": "lokr"},
    "DoRA": {"algo": "locon", "dora_wd": "True", "wd_on_output": "False"},
}


def network_module(config: Config) -> str:
    own = "networks.lora_flux" if config.family == "flux" else "networks.lora"
    return "lycoris.kohya" if config.kind in LYCORIS_ARGS else own


def network_args(config: Config) -> dict[str, Any]:
    """As sd-scripts takes them in `network_args`: what its own arguments do not say of the network."""
    dropouts = {"rank_dropout": config.rank_dropout, "module_dropout": config.module_dropout}
    args = {**_convolutions(config), **block_choice(config), **{name: each for name, each in dropouts.items() if each}}
    if config.kind == "LoKr":
        args["factor"] = config.lokr_factor
    return {**LYCORIS_ARGS.get(config.kind, {}), **args}


def block_choice(config: Config) -> dict[str, str]:
    """Which of Flux's blocks are trained, where it is not all of them."""
    chosen = {name: getattr(config, name) for name in FLUX_BLOCKS if config.family == "flux"}
    return {f"train_{name[:-1]}_indices": text for name, text in chosen.items() if text != "all"}


def _convolutions(config: Config) -> dict[str, Any]:
    """LyCORIS trains 3x3 convolutions at the rank of the rest, unless it is given another rank or told of none."""
    if WITH_CONVOLUTIONS.test(config) and config.conv_rank:
        return {"conv_dim": config.conv_rank, "conv_alpha": config.conv_alpha}
    return {"preset": "attn-mlp"} if config.kind in LYCORIS_ARGS else {}

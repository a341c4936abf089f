"""The networks in sd-scripts' words: the blocks they count, the module that makes each kind, and its arguments."""

from __future__ import annotations

from typing import Any

from lora_trainer.config.settings import Config

BLOCKS = {"sd15": (12, 1, 12), "sd2": (12, 1, 12), "sdxl": (9, 3, 9)}  # of a U-Net: down, mid, up

# What makes a kind of LyCORIS's network. DoRA's lengths stand for inputs: the one form that both WebUIs apply rightly.
LYCORIS_ARGS = {
    "LoHa": {"algo": "loha"},
    "LoKr": {"algo": "lokr"},
    "DoRA": {"algo": "locon", "dora_wd": "True", "wd_on_output": "False"},
}


def network_module(config: Config) -> str:
    return "lycoris.kohya" if config.kind in LYCORIS_ARGS else "networks.lora"


def network_args(config: Config) -> dict[str, Any]:
    """As sd-scripts takes them in `network_args`: what its own arguments do not say of the network."""
    dropouts = {"rank_dropout": config.rank_dropout, "module_dropout": config.module_dropout}
    args = {**_convolutions(config), **{name: value for name, value in dropouts.items() if value}}
    if config.kind == "LoKr":
        args["factor"] = config.lokr_factor
    return {**LYCORIS_ARGS.get(config.kind, {}), **args}


def _convolutions(config: Config) -> dict[str, Any]:
    """LyCORIS trains 3x3 convolutions at the rank of the rest, unless it is given another rank or told of none."""
    if config.kind != "LoRA" and config.conv_rank:
        return {"conv_dim": config.conv_rank, "conv_alpha": config.conv_alpha}
    return {"preset": "attn-mlp"} if config.kind in LYCORIS_ARGS else {}

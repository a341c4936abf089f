"""Which layer each kind of network is made of."""

from __future__ import annotations

from functools import partial

from lora_trainer.config import Config
from lora_trainer.config.networks import LYCORIS_ARGS
from lora_trainer.training.lora import Dropouts, LoraLayer, MakeLayer


def layer_maker(config: Config) -> MakeLayer:
    """LoRA and LoCon take our own layer, which computes what LyCORIS's would without its full-size product."""
    dropouts = Dropouts(config.dropout, config.rank_dropout, config.module_dropout)
    if config.kind not in LYCORIS_ARGS:
        return partial(LoraLayer, dropouts=dropouts)
    from lora_trainer.training.lycoris_layer import LycorisLayer  # its import takes a moment

    return partial(LycorisLayer, kind=config.kind, dropouts=dropouts, lokr_factor=config.lokr_factor)

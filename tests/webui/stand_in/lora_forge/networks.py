"""Forge's LoRAs: a file is kept by its name, and what is written over it is not seen until the cache is cleared.

Besides, the model's parts are changed anew only where names or weights are others than those that are in them.
"""

from __future__ import annotations

import functools
from types import SimpleNamespace

from lora_list import (
    available_network_aliases,
    available_network_hash_lookup,
    available_networks,
    content,
    forbidden_network_aliases,
    list_available_networks,
    on_disk,
)
from modules import sd_models

loaded_networks = []


@functools.lru_cache(maxsize=5)
def load_lora_state_dict(filename):
    return content(filename)


def load_networks(names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
    model = sd_models.model_data.get_sd_model()
    found = [(on_disk(name), weight) for name, weight in zip(names, unet_multipliers or [1.0] * len(names))]
    loaded_networks[:] = [SimpleNamespace(name=name) for name, (network, _) in zip(names, found) if network]
    targets = [(network.filename, weight) for network, weight in found if network]
    if model.current_lora_hash != str(targets):
        model.current_lora_hash = str(targets)
        model.wanted = [(load_lora_state_dict(filename), weight) for filename, weight in targets]
        plain = model.forge_objects_original
        model.forge_objects_after_applying_lora = SimpleNamespace(unet=object(), clip=plain.clip) if targets else plain


__all__ = [
    "available_network_aliases",
    "available_network_hash_lookup",
    "available_networks",
    "forbidden_network_aliases",
    "list_available_networks",
    "load_networks",
    "loaded_networks",
]
list_available_networks()

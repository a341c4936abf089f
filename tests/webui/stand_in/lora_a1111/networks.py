"""A1111's LoRAs: a file that has been overwritten is read again, by its time.

But the model is changed anew only where names or weights are others than those of the last picture.
"""

from __future__ import annotations

import os

from lora_list import (
    available_network_aliases,
    available_network_hash_lookup,
    available_networks,
    content,
    forbidden_network_aliases,
    list_available_networks,
    on_disk,
)

loaded_networks = []
networks_in_memory = {}


class Network:
    def __init__(self, name, found):
        self.name, self.network_on_disk = name, found
        self.mtime = os.path.getmtime(found.filename)  # noqa: PTH204
        self.content, self.multiplier = content(found.filename), 1.0
        self.modules = {"every layer": self.content}  # those that fit the model: none where it is another family's


def load_networks(names, te_multipliers=None, unet_multipliers=None, dyn_dims=None):
    kept = {net.name: net for net in loaded_networks}
    loaded_networks.clear()
    for name, weight in zip(names, unet_multipliers or [1.0] * len(names)):
        if (found := on_disk(name)) is None:
            print(f"Couldn't find network with name {name}")
            continue
        net = kept.get(name)
        if net is None or os.path.getmtime(found.filename) > net.mtime:  # noqa: PTH204
            net = Network(name, found)
        net.multiplier = weight
        loaded_networks.append(net)


def patch(model):
    wanted = tuple((net.name, net.multiplier) for net in loaded_networks)
    if model.network_current_names != wanted:
        model.network_current_names = wanted
        model.applied = [(net.content, net.multiplier) for net in loaded_networks]


__all__ = [
    "available_network_aliases",
    "available_network_hash_lookup",
    "available_networks",
    "forbidden_network_aliases",
    "list_available_networks",
    "load_networks",
]
list_available_networks()

"""`<lora:NAME:0.8>` in a prompt: taken out of it, and given to the extension that knows it."""

from __future__ import annotations

import re

extra_network_registry = {}
_TAG = re.compile(r"<(\w+):([^>]+)>")


class ExtraNetworkParams:
    def __init__(self, items=None):
        self.items = items or []
        self.positional = [item for item in self.items if "=" not in item]
        self.named = dict(item.split("=", 1) for item in self.items if "=" in item)


class ExtraNetwork:
    def __init__(self, name):
        self.name = name

    def activate(self, p, params_list):
        raise NotImplementedError


def register_extra_network(network):
    extra_network_registry[network.name] = network


def parse_prompt(prompt):
    found: dict[str, list[ExtraNetworkParams]] = {}
    for kind, words in _TAG.findall(prompt):
        found.setdefault(kind, []).append(ExtraNetworkParams(words.split(":")))
    return _TAG.sub("", prompt), found


def activate(p, data):
    for name, network in extra_network_registry.items():
        network.activate(p, data.get(name, []))

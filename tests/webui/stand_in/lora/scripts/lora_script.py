"""Has prompts know `<lora:NAME:WEIGHT>`."""

from __future__ import annotations

import json
from pathlib import Path

import networks
from modules import extra_networks, script_callbacks


class ExtraNetworkLora(extra_networks.ExtraNetwork):
    def __init__(self):
        super().__init__("lora")

    def activate(self, p, params_list):
        names = [params.positional[0] for params in params_list]
        weights = [float(params.positional[1]) if len(params.positional) > 1 else 1.0 for params in params_list]
        networks.load_networks(names, weights, weights, [None] * len(names))

    def cards(self):
        """Each card's name and what a click on it puts into the prompt."""
        networks.list_available_networks()
        return [(name, self._prompt(entry)) for name, entry in networks.available_networks.items()]

    def _prompt(self, entry):
        file = Path(entry.filename).with_suffix(".json")
        card = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        tag = f"<lora:{entry.get_alias()}:{float(card.get('preferred weight') or 0) or 1.0:g}>"
        return " ".join(filter(None, (tag, card.get("activation text"))))


def loras():
    entries = networks.available_networks.values()
    return [
        {"name": each.name, "alias": each.alias, "path": each.filename, "metadata": each.metadata} for each in entries
    ]


def api_networks(_demo, app):
    app.add_api_route("/sdapi/v1/loras", loras, methods=["GET"])
    app.add_api_route("/sdapi/v1/refresh-loras", networks.list_available_networks, methods=["POST"])


script_callbacks.on_before_ui(lambda: extra_networks.register_extra_network(ExtraNetworkLora()))
script_callbacks.on_app_started(api_networks)

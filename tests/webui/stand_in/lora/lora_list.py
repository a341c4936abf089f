"""The LoRAs in the folder, by file name and by the alias that their metadata give; alike in both WebUIs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from modules import shared

available_networks = {}
available_network_aliases = {}
available_network_hash_lookup = {}
forbidden_network_aliases = {}


class NetworkOnDisk:
    def __init__(self, name, filename):
        self.name, self.filename = name, filename
        self.metadata = _metadata(filename)
        self.alias = self.metadata.get("ss_output_name", name)
        self.hash = self.shorthash = ""

    def get_alias(self):
        by_file = shared.opts.lora_preferred_name == "Filename" or self.alias.lower() in forbidden_network_aliases
        return self.name if by_file else self.alias

    def read_hash(self):
        """Nothing here asks for it."""


def _metadata(filename):
    return json.loads(_parts(filename)[0]).get("__metadata__", {})


def content(filename):
    """What a picture is changed by: the tensors, whatever the file says about them."""
    return hashlib.sha256(_parts(filename)[1]).hexdigest()


def _parts(filename):
    """A safetensors file's header and its tensors."""
    whole = Path(filename).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return whole[8:end], whole[end:]


def list_available_networks():
    for kept in (available_networks, available_network_aliases, forbidden_network_aliases):
        kept.clear()
    forbidden_network_aliases.update({"none": 1, "Addams": 1})
    Path(shared.cmd_opts.lora_dir).mkdir(parents=True, exist_ok=True)
    for filename in shared.walk_files(shared.cmd_opts.lora_dir, (".pt", ".ckpt", ".safetensors")):
        entry = NetworkOnDisk(Path(filename).stem, filename)
        available_networks[entry.name] = entry
        if entry.alias in available_network_aliases:
            forbidden_network_aliases[entry.alias.lower()] = 1
        available_network_aliases[entry.name] = available_network_aliases[entry.alias] = entry


def on_disk(name):
    """Looked for in the folder again where it is not known yet."""
    for _ in range(2):
        known = available_networks if name.lower() in forbidden_network_aliases else available_network_aliases
        if name in known:
            return known[name]
        list_available_networks()
    return None

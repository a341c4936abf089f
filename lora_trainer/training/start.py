"""A training that starts from a LoRA, which keeps its effect: its names, alpha and rank are brought to the run's."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.inspecting import FAMILIES, Facts
from lora_trainer.inspecting.describe_lora import describe_lora
from lora_trainer.inspecting.facts import UNET_LORA_PREFIX
from lora_trainer.inspecting.header import Header, bad_model, read_header
from lora_trainer.inspecting.identify import read_json
from lora_trainer.inspecting.kinds import kind_of
from lora_trainer.inspecting.lora_names import is_lora, parsed, place
from lora_trainer.training.families.layout import unet_module_name
from lora_trainer.training.families.tensors import read_tensors
from lora_trainer.training.lora import LoraNetwork

Tensors = Mapping[str, Tensor]  # of one module, by what they are there: "lora_down.weight", "alpha"

FLUX_BLOCK = re.compile(r"(double|single)_blocks_\d+_")
_TEXT_ENCODERS = ("text encoder", "text encoder 2")
_BLOCK = re.compile(r"(down_blocks|up_blocks|mid_block)(?:_(\d+))?_(resnets|attentions|downsamplers|upsamplers)_(\d+)_")


def start_from(path: Path, network: LoraNetwork, config: Config, facts: Facts, unet: Mapping[str, Any]) -> list[str]:
    """Loads a LoRA into a fresh network, which then has that LoRA's effect; returns what the user should know of it.

    Another alpha than the run's is made up for, and a smaller rank filled up with fresh ones that add nothing yet.
    `unet`: the U-Net's config. BadInput, of the setting start_lora, where the file is no LoRA or does not fit the run.
    """
    try:
        header = _lora_header(path, facts)
        held = read_lora(header, facts, unet)
    except BadInput as error:
        raise BadInput(replace(problem, setting="start_lora") for problem in error.problems) from None
    fresh = _by_module(network.state_dict())
    given = {key: _widened(held[key], fresh[key]) for key in fresh.keys() & held.keys()}
    missing = network.load_state_dict({f"{key}.{what}": tensor for key in given for what, tensor in given[key].items()})
    if not given:
        raise _misfit(header, "of which this run trains no module")
    if not given.keys().isdisjoint(missing):
        raise _misfit(header, f"which does not fit a {config.kind} of rank {config.rank}")
    return _remarks(path.name, len(missing), Counter(place(key)[0] for key in held.keys() - given.keys()))


def read_lora(header: Header, facts: Facts, unet: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Each module's tensors (float32) under its key in a file of the trainer's, and with an alpha where it has a rank.

    A module that has no such key keeps its name. `unet`: the U-Net's config.
    """
    names = {name: found for name in header.tensors if (found := parsed(name))}
    modules: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in read_tensors({name: header.tensors[name] for name in names}):
        modules[names[name].module][names[name].what] = tensor.float()
    adapter = _adapter(header)
    for module, tensors in modules.items():
        if "alpha" in tensors:
            if tensors["alpha"].numel() != 1:
                raise bad_model(header.file, f"has for {module} an alpha that is no number", "Choose another.")
            tensors["alpha"] = tensors["alpha"].reshape(())
        _unify(tensors, module, adapter)
    return {key_of(module, facts, unet): tensors for module, tensors in modules.items()}


def key_of(module: str, facts: Facts, unet: Mapping[str, Any]) -> str:
    """A module's key in a file of the trainer's, of its name in a file of anybody's; that name if there is no such key.

    `unet`: the U-Net's config, of which `layers_per_block` and `up_block_types` are read.
    """
    part, path = place(module)
    if FLUX_BLOCK.match(path) and facts.family == "flux":  # sd-scripts calls its transformer a U-Net, too
        return f"{UNET_LORA_PREFIX}_{path}"
    if part == "unet":
        return f"{UNET_LORA_PREFIX}_{_sgm_path(path, unet) if facts.sgm_names else path}"
    if part in _TEXT_ENCODERS[: len(facts.text_encoders)]:
        return f"{facts.text_encoders[_TEXT_ENCODERS.index(part)].lora_prefix}_{path}"
    return module


def _sgm_path(path: str, unet: Mapping[str, Any]) -> str:
    """A diffusers path with `_` for `.` in the original layout; any other path as it is."""
    if not (block := _BLOCK.match(path)):
        return path
    start = ".".join(piece for piece in block.groups() if piece)
    try:
        return unet_module_name(f"{start}.{path[block.end() :]}", unet).replace(".", "_")
    except (ValueError, IndexError):  # of a U-Net with other blocks
        return path


def _unify(tensors: dict[str, Tensor], module: str, adapter: Mapping[str, Any]) -> None:
    """Gives a LoRA an alpha, and multiplies LyCORIS's middle factor into the lower one, which keeps its rank."""
    down, middle = tensors.get("lora_down.weight"), tensors.get("lora_mid.weight")
    if down is None or down.ndim < 2:
        return
    if middle is not None and middle.ndim == 4 and middle.shape[:2] == (len(down), len(down)):
        down = torch.einsum("a b h w, b i -> a i h w", tensors.pop("lora_mid.weight"), down.flatten(1))
        tensors["lora_down.weight"] = down
    tensors.setdefault("alpha", torch.tensor(_adapter_alpha(module, len(down), adapter)))


def _adapter(header: Header) -> Mapping[str, Any]:
    """What PEFT and diffusers say of a LoRA outside its tensors: beside the file, or in its metadata."""
    beside = header.file.with_name("adapter_config.json")
    if beside.is_file():
        return read_json(beside)
    try:
        adapter = json.loads(header.metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        adapter = None
    if not isinstance(adapter, dict):
        raise bad_model(header.file, "has damaged lora_adapter_metadata, which its scale is in", "Download it again.")
    return adapter


def _adapter_alpha(module: str, rank: int, adapter: Mapping[str, Any]) -> float:
    """The alpha of a module that has none in its file: a scale of 1, unless PEFT's config says otherwise."""
    part = next((part for part in ("unet.", "text_encoder.", "text_encoder_2.") if module.startswith(part)), "")
    said = {name.removeprefix(part): value for name, value in adapter.items() if name.startswith(part)} or adapter
    patterns = (said.get("alpha_pattern") or {}).items()
    own = next((alpha for name, alpha in patterns if f".{module}".endswith(f".{name.lstrip('^')}")), None)
    alpha = float(said.get("lora_alpha", rank) if own is None else own)
    return alpha * math.sqrt(rank) if said.get("use_rslora") else alpha


def _widened(held: Tensors, fresh: Tensors) -> Tensors:
    """Of a LoRA layer's tensors, those of a smaller rank put into fresh ones, whose other ranks add nothing yet."""
    names = ("lora_down.weight", "lora_up.weight")
    if not all(name in tensors for name in names for tensors in (held, fresh)):
        return held
    (down, up), (wide_down, wide_up) = ([tensors[name] for name in names] for tensors in (held, fresh))
    rank, room = down.shape[0] if down.ndim else 0, len(wide_down)
    fits = down.numel() == rank * wide_down[0].numel() and up.shape[:2] == (len(wide_up), rank)
    if not (fits and 0 < rank < room):
        return held
    down = torch.cat([down.view(rank, *wide_down.shape[1:]).to(wide_down), wide_down[rank:]])
    up = torch.cat([up.view(len(up), rank, *wide_up.shape[2:]).to(wide_up), wide_up[:, rank:]], dim=1)
    return {**held, "lora_down.weight": down, "lora_up.weight": up, "alpha": held["alpha"] * room / rank}


def _by_module(tensors: Tensors) -> dict[str, dict[str, Tensor]]:
    modules: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        key, _, what = name.partition(".")
        modules[key][what] = tensor
    return modules


def _lora_header(path: Path, facts: Facts) -> Header:
    header = read_header(path)
    if not is_lora(header.tensors):
        kind = kind_of(header.tensors)
        raise bad_model(path, f"is {kind.what if kind else 'a base model'}, not a LoRA", "Choose a LoRA to go on with.")
    family = describe_lora(header)["family"]
    if family not in ("unknown", facts.family):
        known = FAMILIES[family].title if family in FAMILIES else family
        raise bad_model(path, f"is for {known}, and the base is {facts.title}", "Choose a LoRA of the base's family.")
    return header


def _misfit(header: Header, why: str) -> BadInput:
    found = describe_lora(header)
    ranks = f" of rank {' and '.join(found['ranks'])}" if found["ranks"] else ""
    remedy = "Choose another LoRA."
    if found["continue"]["possible"]:
        settings = ", ".join(f"{name} = {json.dumps(value)}" for name, value in found["continue"]["settings"].items())
        remedy = f"Set {settings}, or choose another LoRA."
    return BadInput(Problem("start_lora", header.file.name, f"is a {found['algorithm']}{ranks}, {why}", remedy))


def _remarks(name: str, fresh: int, left: Mapping[str, int]) -> list[str]:
    remarks = [f"{name} has no weights that fit {fresh} layers; these start fresh."] if fresh else []
    parts = ", ".join(f"{part}: {count}" for part, count in left.items())
    return remarks + (
        [f"{name} has modules that this run does not train ({parts}); these are left out."] if left else []
    )

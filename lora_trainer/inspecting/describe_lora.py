"""What a LoRA file is: whose layout, which kind of network for which family, of what size, and how to go on with it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lora_trainer.config import SETTINGS
from lora_trainer.inspecting.facts import FAMILIES
from lora_trainer.inspecting.header import Header, read_scalars
from lora_trainer.inspecting.lora_names import layout, parsed, place

MOST_FREQUENT = 10
_ALGORITHMS = (("hada_", "LoHa"), ("lokr_", "LoKr"), ("oft_", "OFT"), ("on_input", "IA3"), ("dora_scale", "DoRA"))
# All that a kind of network has in a file, beside an alpha.
_HELD = {
    "LoRA": r"lora_(?:down|up|mid)\.weight",
    "LoCon": r"lora_(?:down|up|mid)\.weight",
    "DoRA": r"lora_(?:down|up)\.weight|dora_scale",
    "LoHa": r"hada_w[12]_[ab]",
    "LoKr": r"lokr_w[12](?:_[ab])?",
}
# The rank is the first axis of these; LoKr keeps a factor whole where that is no larger, and then has no rank.
_RANKED = ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")
# What a module reads is the second axis of these, or for LoKr the product of two.
_READING = ("lora_down.weight", "hada_w1_b", "diff", "lokr_w1", "lokr_w1_b", "lokr_w2", "lokr_w2_b")
_CONVOLUTION = re.compile(r"(?:_conv[12]?|_in_layers_2|_out_layers_3|_op)$")


@dataclass(frozen=True)
class Module:
    """What a LoRA holds for one module of the model: its tensors' shapes by what they are there."""

    part: str
    path: str
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def rank(self) -> int:
        """0 if it has none."""
        return next((self.shapes[what][0] for what in _RANKED if self.shapes.get(what)), 0)

    @property
    def reads(self) -> int:
        """How many inputs a Linear reads, where that can be told."""
        return math.prod(self.shapes[what][1] for what in _READING if len(self.shapes.get(what, ())) > 1)

    @property
    def is_convolution(self) -> bool:
        return self.part == "unet" and _CONVOLUTION.search(self.path) is not None


def describe_lora(header: Header) -> dict[str, Any]:
    """`ranks` and `alphas` say for each value how many modules have it; `modules`, how many each model part has.

    `tags` are the most frequent ones of its training captions. `continue` says whether a training can start from it
    (start_lora), and then with which settings the whole of it is taken over, or why not.
    """
    modules = _modules(header)
    facts: dict[str, Any] = {
        "layout": _layout(header),
        "algorithm": _algorithm(modules),
        "family": _family(header, modules),
        "modules": _counted(module.part + " convolutions" * module.is_convolution for module in modules),
        "ranks": _counted(module.rank for module in modules if module.rank),
        "alphas": _counted(f"{alpha:g}" for alpha in _alphas(header)),
    }
    if tags := _tags(header.metadata):
        facts["tags"] = dict(tags.most_common(MOST_FREQUENT))
    why_not = _obstacle(facts["family"], facts["algorithm"], modules)
    going_on = {"why": why_not} if why_not else {"settings": _settings(facts["algorithm"], modules)}
    return facts | {"continue": {"possible": not why_not, **going_on}}


def _modules(header: Header) -> list[Module]:
    found: defaultdict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for name, info in header.tensors.items():
        if tensor := parsed(name):
            found[tensor.module][tensor.what] = info.shape
    return [Module(*place(module), shapes) for module, shapes in found.items()]


def _layout(header: Header) -> str:
    by_lycoris = header.metadata.get("ss_network_module", "").startswith("lycoris")
    return "LyCORIS" if by_lycoris else layout(header.tensors)


def _algorithm(modules: Sequence[Module]) -> str:
    held = _held(modules)
    for piece, algorithm in _ALGORITHMS:
        if any(what.startswith(piece) for what in held):
            return algorithm
    if "lora_down.weight" not in held:
        return "full difference"
    # A branch beside a 3x3 convolution is what LoCon adds to LoRA.
    return "LoCon" if any(shape[2:] == (3, 3) for module in modules for shape in module.shapes.values()) else "LoRA"


def _held(modules: Iterable[Module]) -> set[str]:
    return {what for module in modules for what in module.shapes}


def _alphas(header: Header) -> list[float]:
    return read_scalars(info for name, info in header.tensors.items() if name.endswith(".alpha"))


def _counted(values: Iterable[object]) -> dict[str, int]:
    return dict(Counter(map(str, values)).most_common())


def _tags(metadata: Mapping[str, str]) -> Counter[str]:
    """From `ss_tag_frequency`: for each folder, how often each tag was in its captions."""
    counts: Counter[str] = Counter()
    try:
        for tags in json.loads(metadata.get("ss_tag_frequency", "{}")).values():
            counts.update({tag.strip(): int(count) for tag, count in tags.items()})
    except (ValueError, TypeError, AttributeError):
        return Counter()  # another tool's idea of it
    return counts


def _obstacle(family: str, algorithm: str, modules: Sequence[Module]) -> str | None:
    """Why no training can start from this file; None if one can."""
    if family == "unknown":
        return "nothing in it tells which family of base models it is for"
    if family not in FAMILIES:
        return f"it is for {family}, which can't be trained"
    if family == "flux" and not any(map(_of_flux, modules)):
        return "its layers have other names than Flux's own, which are trained"
    if algorithm not in SETTINGS["kind"].choices:
        return f"it is of the kind {algorithm}, which can't be trained"
    if beside := sorted(what for what in _held(modules) - {"alpha"} if not re.fullmatch(_HELD[algorithm], what)):
        return f"it holds more than a {algorithm} does: {', '.join(beside)}"
    if any(module.shapes.get("dora_scale", (1,))[0] != 1 for module in modules):
        return "its DoRA has a length for each output, and a length for each input is what is trained"
    return None


def _settings(algorithm: str, modules: Sequence[Module]) -> dict[str, Any]:
    """The settings of a run that has room for all of this file."""
    trained = {"unet" if module.part in ("unet", "transformer") else "text_encoder" for module in modules}
    settings = {
        "kind": algorithm,
        "rank": max((module.rank for module in modules if not module.is_convolution), default=0),
        "conv_rank": max((module.rank for module in modules if module.is_convolution), default=0),
        "train": "both" if len(trained) > 1 else trained.pop(),
    }
    return {name: value for name, value in settings.items() if value}


def _family(header: Header, modules: Sequence[Module]) -> str:
    """From the metadata, else from the names and the width that cross attention reads; or "unknown"."""
    said = header.metadata.get("ss_base_model_version", "") or header.metadata.get("modelspec.architecture", "")
    for starts, family in _SAID_FAMILIES:
        if said.startswith(starts):
            return family
    return next((family for family, test in _SEEN_FAMILIES if any(map(test, modules))), "unknown")


def _reads(width: int) -> Callable[[Module], bool]:
    return lambda module: module.path.endswith("attn2_to_k") and module.reads == width


def _of_flux(module: Module) -> bool:
    """Whether it is of a layer that Flux's own code has, where diffusers has several."""
    return re.match(r"(?:double|single)_blocks_\d+_(?!processor)|text_model_", module.path) is not None


def _named(pattern: str) -> Callable[[Module], bool]:
    return lambda module: re.search(pattern, f"{module.part}: {module.path}") is not None


_SAID_FAMILIES = (
    (("sdxl", "stable-diffusion-xl"), "sdxl"),
    (("sd_v1", "sd_1", "stable-diffusion-v1"), "sd15"),
    (("sd_v2", "stable-diffusion-v2"), "sd2"),
    (("flux",), "flux"),
    (("sd3", "stable-diffusion-3"), "sd3"),
)
_SEEN_FAMILIES = (
    ("flux", _named("double_blocks|single_blocks|single_transformer_blocks")),
    ("sd3", _named("joint_blocks|add_q_proj")),
    ("sdxl", _named(r"^text encoder 2:|\d_transformer_blocks_[1-9]")),
    ("sdxl", _reads(2048)),
    ("sd2", _reads(1024)),
    ("sd15", _reads(768)),
    ("sd2", _named(r"^text encoder: text_model_encoder_layers_(?:1[2-9]|2\d)")),
    ("sd15", _named(r"^text encoder: text_model_encoder_layers_11_")),
)

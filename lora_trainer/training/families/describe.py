"""What a file is, as a plain table: a base model or a LoRA, with what can be read from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lora_trainer.training.families.header import Header, TensorInfo, is_folder, read_header, read_tensors
from lora_trainer.training.families.identify import identify, parameters, precision
from lora_trainer.training.families.kinds import LORA_ENDS, is_lora, kind_of

# The tensor whose `axis` is a module's rank; the bigger files of LoKr keep one of its factors whole and have no rank.
_RANK_AXES = {
    "lora_down.weight": 0,
    "lora_A.weight": 0,
    "lora_A.default.weight": 0,
    "lora.down.weight": 0,
    "hada_w1_b": 0,
    "lokr_w1_b": 0,
    "lokr_w2_b": 0,
}
_ALGORITHMS = {"hada_": "LoHa", "lokr_": "LoKr", "oft_": "OFT", "on_input": "IA3"}
_MODULE = re.compile(
    r"(.+?)[._](?:lora_(?:down|up|mid|[AB])|lora\.(?:down|up)|hada_|lokr_|oft_|dora_scale|(?:weight_)?diff|on_input)"
)
_SHOWN_METADATA = (
    "modelspec.title",
    "modelspec.architecture",
    "modelspec.date",
    "modelspec.trigger_phrase",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_output_name",
    "ss_network_module",
    "ss_num_epochs",
    "ss_steps",
    "ss_learning_rate",
    "ss_optimizer",
    "ss_resolution",
    "ss_training_comment",
)


def describe(path: Path) -> dict[str, Any]:
    """`kind` ("base model", "LoRA", or another kind's name) and what is known of it, in values that JSON can hold.

    BadInput for a file that is no model at all.
    """
    if is_folder(path):
        return _describe_base(path)
    header = read_header(path)
    facts = {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "precision": precision(header.tensors.values()),
        "parameters": parameters(header.tensors.values()),
        "metadata": {key: header.metadata[key] for key in _SHOWN_METADATA if key in header.metadata},
    }
    if is_lora(header.tensors):
        return {"kind": "LoRA"} | facts | _describe_lora(header)
    if kind := kind_of(header.tensors):
        return {"kind": kind.what} | facts
    return _describe_base(path) | facts


def _describe_base(path: Path) -> dict[str, Any]:
    base = identify(path)
    return {
        "kind": "base model",
        "file": path.name,
        "title": base.title,
        "family": base.family,
        "prediction_type": base.prediction_type,
        "zero_terminal_snr": base.zero_terminal_snr,
        "layout": base.layout,
        "precision": base.precision,
        "parameters": base.parameters,
        "reasons": list(base.reasons),
    }


def _describe_lora(header: Header) -> dict[str, Any]:
    """`ranks` and `alphas` say for each value how many modules have it; `modules`, how many each model part has."""
    modules = {match[1] for match in map(_MODULE.match, header.tensors) if match}
    return {
        "layout": _lora_layout(header),
        "algorithm": _algorithm(header.tensors),
        "family": _lora_family(header),
        "modules": _counted(map(_part_of, modules)),
        "ranks": _counted(map(str, _ranks(header.tensors))),
        "alphas": _counted(f"{alpha:g}" for alpha in _alphas(header)),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _lora_layout(header: Header) -> str:
    """Whose key names the file has."""
    if header.metadata.get("ss_network_module", "").startswith("lycoris"):
        return "LyCORIS"
    ends = [layout for end, layout in LORA_ENDS.items() if any(name.endswith(end) for name in header.tensors)]
    return "LyCORIS" if "LyCORIS" in ends else ends[0]


def _algorithm(tensors: Mapping[str, TensorInfo]) -> str:
    found = next((name for piece, name in _ALGORITHMS.items() if any(f".{piece}" in key for key in tensors)), None)
    if found:
        return found
    if any(key.endswith(("dora_scale", "lora_magnitude_vector")) for key in tensors):
        return "DoRA"
    if any(key.endswith(("diff", "diff_b")) for key in tensors):
        return "full difference"
    # A branch beside a 3x3 convolution is what LoCon adds to LoRA.
    return "LoCon" if any(info.shape[2:] == (3, 3) for info in tensors.values()) else "LoRA"


def _ranks(tensors: Mapping[str, TensorInfo]) -> list[int]:
    axes = ((info, axis) for key, info in tensors.items() for end, axis in _RANK_AXES.items() if key.endswith(end))
    return [info.shape[axis] for info, axis in axes if info.shape]


def _alphas(header: Header) -> list[float]:
    scalars = {name: info for name, info in header.tensors.items() if name.endswith(".alpha") and not info.shape}
    return [float(tensor) for _, tensor in read_tensors(scalars)]


def _part_of(module: str) -> str:
    for starts, part in (
        (("lora_te2", "text_encoder_2"), "text encoder 2"),
        (("lora_te3", "text_encoder_3"), "text encoder 3"),
        (("lora_te", "text_encoder"), "text encoder"),
        (("lora_transformer", "transformer", "lora_unet_double", "lora_unet_single"), "transformer"),
    ):
        if module.startswith(starts):
            return part
    return "unet"


def _lora_family(header: Header) -> str:
    """From the metadata, else from the layout of the names and the width that cross attention reads; or "unknown"."""
    said = header.metadata.get("ss_base_model_version", "") or header.metadata.get("modelspec.architecture", "")
    for starts, family in _SAID_FAMILIES:
        if said.startswith(starts):
            return family
    return next((family for family, test in _SEEN_FAMILIES if test(header.tensors)), "unknown")


def _reads(width: int) -> Callable[[Mapping[str, TensorInfo]], bool]:
    ends = re.compile(r"attn2[._]to_k[._].*(?:down\.weight|lora_A(?:\.default)?\.weight|hada_w1_b)$")
    return lambda tensors: any(ends.search(name) and info.shape[1] == width for name, info in tensors.items())


def _named(*pieces: str) -> Callable[[Mapping[str, TensorInfo]], bool]:
    return lambda tensors: any(piece in name for name in tensors for piece in pieces)


_SAID_FAMILIES = (
    (("sdxl", "stable-diffusion-xl"), "sdxl"),
    (("sd_v1", "sd_1", "stable-diffusion-v1"), "sd15"),
    (("sd_v2", "stable-diffusion-v2"), "sd2"),
    (("flux",), "flux"),
    (("sd3", "stable-diffusion-3"), "sd3"),
)
_SEEN_FAMILIES = (
    ("flux", _named("double_blocks", "single_blocks", "single_transformer_blocks")),
    ("sd3", _named("joint_blocks", "add_q_proj")),
    ("sdxl", _named("lora_te2_", "text_encoder_2.")),
    ("sdxl", _reads(2048)),
    ("sd2", _reads(1024)),
    ("sd15", _reads(768)),
)

"""A LoRA's own metadata as the arguments it was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_trainer.config.interchange.facts import DEFAULTS
from lora_trainer.config.interchange.report import Line
from lora_trainer.config.interchange.source import Source
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.settings import SETTINGS

LONGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
OPTIMIZER = re.compile(r"([\w.]+)(?:\((.*)\))?")
FAMILIES = {"sd_v1": "sd15", "sd_v2": "sd2", "sdxl": "sdxl", "flux": "flux"}  # of ss_base_model_version
ARCHITECTURES = {"stable-diffusion-v1": "sd15", "stable-diffusion-v2": "sd2", "stable-diffusion-xl": "sdxl"}
ALSO = {  # what no setting records under its own name
    "ss_network_args": "network_args",
    "ss_optimizer": "optimizer_type",
    "ss_zero_terminal_snr": "zero_terminal_snr",
    "ss_cache_latents": "cache_latents",
    "ss_full_fp16": "full_fp16",
    "ss_fp8_base": "fp8_base",
    "ss_fp8_base_unet": "fp8_base_unet",
    "ss_face_crop_aug_range": "face_crop_aug_range",
    "ss_ip_noise_gamma_random_strength": "ip_noise_gamma_random_strength",
    "ss_huber_scale": "huber_scale",
    "ss_validation_split": "validation_split",
    "ss_resize_interpolation": "resize_interpolation",
    "ss_weighting_scheme": "weighting_scheme",
    "ss_timestep_sampling": "timestep_sampling",
    "ss_discrete_flow_shift": "discrete_flow_shift",
    "ss_guidance_scale": "guidance_scale",
    "ss_apply_t5_attn_mask": "apply_t5_attn_mask",
    "ss_model_prediction_type": "model_prediction_type",
}


def read_lora(path: Path) -> tuple[dict[str, str], list[str]]:
    """A safetensors file's metadata and the names of its tensors; BadInput where it is damaged. Nothing is loaded."""
    try:
        table, _ = read_table(path)
        metadata = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
    except (ValueError, AttributeError, RecursionError):
        raise BadInput(Problem("file", path.name, "is damaged, or is no safetensors file", "Get it again.")) from None
    return metadata, list(table)


def read_table(path: Path) -> tuple[Any, int]:
    """The JSON that a safetensors file begins with, and the byte where its weights begin.

    Raises ValueError or RecursionError where it is no such file, OSError where it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        content = file.read(length) if length <= LONGEST_HEADER else b""
    return json.loads(content.decode("utf-8")), 8 + length


def from_metadata(metadata: Mapping[str, str], tensors: list[str], name: str) -> Source:
    """What a LoRA says of its training. BadInput if it says nothing; `name` is the file's."""
    if not any(key.startswith("ss_") for key in metadata):
        remedy = "Only its trainer can say how it was made; some tools remove it."
        raise BadInput(Problem("file", name, "says nothing of its training", remedy))
    arguments = {**_recorded(metadata), **_length(metadata), **_trained(tensors), **_prediction(metadata)}
    dataset = _dataset(metadata)
    layers = {"network_train_unet_only": "text encoder", "network_train_text_encoder_only": "U-Net"}
    spelled = {argument: f"no layer of a {part}, so {argument}" for argument, part in layers.items()}
    return Source(
        {key: value for key, value in arguments.items() if value is not None},
        dataset,
        _family(metadata),
        f"ss_base_model_version = {metadata.get('ss_base_model_version')}",
        whole=False,
        changed=(Line("", "folders and files", "a LoRA holds their names only; put the paths before them"),),
        spelled={**{argument: key for key, argument in _keys().items()}, **spelled},
        total_steps=_count(metadata, "ss_max_train_steps") or None,
    )


def _keys() -> dict[str, str]:
    return {row.metadata: row.kohya[0] for row in SETTINGS.values() if row.metadata and row.kohya} | ALSO


def _recorded(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The arguments by sd-scripts' names; "None" stands for its default."""
    values: dict[str, Any] = {}
    for key, argument in _keys().items():
        if key in metadata and key not in ("ss_dataset_dirs", "ss_num_epochs", "ss_max_train_steps"):
            text = metadata[key]
            values[argument] = DEFAULTS.get(argument) if text == "None" else _plain(text)
    values |= _optimizer(metadata.get("ss_optimizer", ""))
    return values


def _plain(text: str) -> Any:
    """Lists and tables are JSON or Python's own form; everything else stays text."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text.strip("[]").split(",")
    return text.strip("()") if text[:1] == "(" else text


def _optimizer(text: str) -> dict[str, Any]:
    match = OPTIMIZER.fullmatch(text.strip())
    if match is None or text == "None":
        return {}
    arguments = re.split(r",(?=\w+=)", match[2]) if match[2] else []
    return {"optimizer_type": match[1], "optimizer_args": [re.sub(r"[()\s]", "", each) for each in arguments]}


def _length(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Epochs where the steps are what they make, else steps."""
    epochs, steps, batches, accumulated = (
        _count(metadata, key)
        for key in ("ss_num_epochs", "ss_max_train_steps", "ss_num_batches_per_epoch", "ss_gradient_accumulation_steps")
    )
    if epochs and batches and steps == epochs * -(-batches // max(1, accumulated)):
        return {"max_train_epochs": epochs}
    return {"max_train_steps": steps} if steps else {"max_train_epochs": epochs} if epochs else {}


def _count(metadata: Mapping[str, str], key: str) -> int:
    return int(metadata[key]) if metadata.get(key, "").isdigit() else 0


def _prediction(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Whether the base predicted v; sd-scripts' name of it ends so, and newer files say it."""
    said = metadata.get("modelspec.prediction_type") in ("epsilon", "v")
    v = metadata.get("modelspec.prediction_type") == "v" or metadata.get("ss_base_model_version", "").endswith("_v")
    return {"v_parameterization": v} if said or v else {}


def _trained(tensors: list[str]) -> dict[str, Any]:
    unet = any(name.startswith("lora_unet") for name in tensors)
    text = any(name.startswith("lora_te") for name in tensors)
    return {"network_train_unet_only": unet and not text, "network_train_text_encoder_only": text and not unet}


def _family(metadata: Mapping[str, str]) -> str:
    version, architecture = metadata.get("ss_base_model_version", ""), metadata.get("modelspec.architecture", "")
    known = FAMILIES | ARCHITECTURES
    return next(
        (family for start, family in known.items() if version.startswith(start) or start in architecture), "auto"
    )


def _dataset(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """As a dataset config: the folders of `ss_datasets`, or else the names in `ss_dataset_dirs`."""
    datasets = _plain(metadata.get("ss_datasets", "[]"))
    if isinstance(datasets, list) and datasets and all(isinstance(table, dict) for table in datasets):
        return {"datasets": [_table(table) for table in datasets]}
    subsets = []
    for key, regularisation in (("ss_dataset_dirs", False), ("ss_reg_dataset_dirs", True)):
        folders = _plain(metadata.get(key, "{}"))
        for folder, facts in folders.items() if isinstance(folders, dict) else ():
            repeats = facts.get("n_repeats", 1) if isinstance(facts, dict) else 1
            subsets.append({"image_dir": folder, "num_repeats": repeats, "is_reg": regularisation})
    return {"datasets": [{"subsets": subsets}]} if subsets else None


COUNTED = ("img_count", "num_train_images", "num_reg_images", "tag_frequency", "bucket_info", "is_dreambooth")


def _table(table: dict[str, Any]) -> dict[str, Any]:
    """A dataset of `ss_datasets` as its config has it: without what was counted, and None where nothing was said."""
    values = {key: value for key, value in table.items() if key not in COUNTED and value is not None}
    if "batch_size_per_device" in values:
        values["batch_size"] = values.pop("batch_size_per_device")
    values["subsets"] = [
        {key: value for key, value in subset.items() if key not in COUNTED and value is not None}
        for subset in values.get("subsets", [])
        if isinstance(subset, dict)
    ]
    return values

"""Which base model a file or folder is: family, prediction type, zero terminal SNR, from its header alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer.inspecting import flux
from lora_trainer.inspecting.facts import FAMILIES
from lora_trainer.inspecting.header import Header, TensorInfo, bad_model, is_folder, read_header
from lora_trainer.inspecting.kinds import A_BASE, A_WHOLE, LATER, OF_DIFFUSERS, ORIGINAL, kind_of

GUIDANCE = {
    "dev": "Flux.1 dev: it has an input for the guidance",
    "schnell": "Flux.1 schnell: it has no input for the guidance",
}
PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8", "F64": "fp64"}


@dataclass(frozen=True)
class BaseModel:
    """What a base model is, and the `reasons` for it: where each fact was read.

    `family`: sd15, sd2, sdxl or flux. `prediction_type`: epsilon, v or flow. `layout`: original (one file) or diffusers
    (a folder). `precision`: that of most of its weights, of Flux's transformer alone. `parameters`: how many numbers it
    holds. Of Flux, `variant` is dev or schnell, and `parts` says by the names of their settings which files hold what
    the transformer needs beside it: only this one before the others are looked for.
    """

    path: Path
    family: str
    prediction_type: str
    zero_terminal_snr: bool
    layout: str
    title: str
    precision: str
    parameters: int
    reasons: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    variant: str = ""
    parts: Mapping[str, Path] = field(default_factory=dict)


def identify(path: Path) -> BaseModel:
    """Reads the header of one file, or of a diffusers folder's files; no weight is loaded.

    BadInput names what the file is when it is not a base model that can be trained.
    """
    if is_folder(path):
        return _identify_folder(path)
    header = read_header(path)
    if kind := kind_of(header.tensors):
        raise bad_model(path, f"is {kind.what}", kind.choose)
    return base_of(header)


def base_of(header: Header) -> BaseModel:
    """The base model in a file that `kind_of` knows no other kind for. BadInput if a part of it is missing."""
    if transformer := flux.tensors_of("transformer", header.tensors):
        return _flux(header, transformer)
    family, family_reason = _family(header)
    prediction, prediction_reason = _prediction(header, family)
    zero, zero_reason = _zero_terminal_snr(header)
    return BaseModel(
        path=header.file,
        family=family,
        prediction_type=prediction,
        zero_terminal_snr=zero,
        layout="original",
        title=header.metadata.get("modelspec.title") or header.file.stem,
        precision=precision(header.tensors.values()),
        parameters=parameters(header.tensors.values()),
        reasons=(family_reason, prediction_reason, zero_reason),
        metadata=header.metadata,
    )


def _flux(header: Header, transformer: Mapping[str, TensorInfo]) -> BaseModel:
    held = {part: is_in(header.tensors) for part, is_in in flux.IS_PART.items()}
    variant, (double, single) = flux.variant(transformer), flux.depth(transformer)
    reasons = [GUIDANCE[variant], f"{double} double and {single} single blocks"]
    if (double, single) != flux.DEPTH:
        reasons.append("another depth than Flux.1's: what is trained on it fits models of the same depth only")
    return BaseModel(
        path=header.file,
        family="flux",
        prediction_type="flow",
        zero_terminal_snr=False,
        layout="original",
        title=header.metadata.get("modelspec.title") or header.file.stem,
        precision=precision(transformer.values()),
        parameters=parameters(header.tensors.values()),
        reasons=tuple(reasons),
        metadata=header.metadata,
        variant=variant,
        parts={part: header.file for part, found in held.items() if found},
    )


def precision(tensors: Iterable[TensorInfo]) -> str:
    """The precision of most numbers: fp32, fp16, bf16, fp8, nf4, or the file's own name for another."""
    counts: Counter[str] = Counter()
    for dtype, numbers in _counted(tensors):
        counts[PRECISIONS.get(dtype, dtype)] += numbers
    return counts.most_common(1)[0][0] if counts else "none"


def parameters(tensors: Iterable[TensorInfo]) -> int:
    return sum(numbers for _, numbers in _counted(tensors))


def _counted(tensors: Iterable[TensorInfo]) -> Iterator[tuple[str, int]]:
    """The type and the count of each tensor's numbers. NF4 has two in a byte; what it needs beside them is none."""
    tensors = list(tensors)
    packed = {info.name.removesuffix(flux.NF4_STATE) for info in tensors if info.name.endswith(flux.NF4_STATE)}
    for info in tensors:
        if info.name in packed:
            yield "nf4", 2 * math.prod(info.shape)
        elif not (packed and info.name.endswith(flux.NF4_BESIDE)):
            yield info.dtype, math.prod(info.shape)


def _family(header: Header) -> tuple[str, str]:
    """The family whose text encoders are all in the file; the last family's are asked for first, as they are more."""
    for family, facts in reversed(list(FAMILIES.items())):
        if family == "flux":  # its text encoders come in files of their own
            continue
        prefixes = [encoder.prefix for encoder in facts.text_encoders]
        if all(any(name.startswith(prefix) for name in header.tensors) for prefix in prefixes):
            return family, f"{facts.title}: it has the text encoder {prefixes[-1].rstrip('.')}"
    raise bad_model(header.file, "has a U-Net, but no text encoder", A_WHOLE)


def _prediction(header: Header, family: str) -> tuple[str, str]:
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said:
        return ("v" if said.startswith("v") else "epsilon"), f"prediction type {said}: from its metadata"
    if "v_pred" in header.tensors:
        return "v", "v prediction: it has the key v_pred"
    if header.metadata.get("modelspec.architecture", "").endswith("768-v"):
        return "v", "v prediction: its metadata says 768-v"
    if family == "sd2":
        return (
            "epsilon",
            "epsilon prediction: assumed, as the file says nothing; a 768-v model needs prediction_type = v",
        )
    return "epsilon", "epsilon prediction: nothing in the file says v"


def _zero_terminal_snr(header: Header) -> tuple[bool, str]:
    if "ztsnr" in header.tensors:
        return True, "zero terminal SNR: it has the key ztsnr"
    if header.metadata.get("ss_zero_terminal_snr") == "True":
        return True, "zero terminal SNR: from its metadata"
    return False, "no zero terminal SNR: nothing in the file says so"


def _identify_folder(path: Path) -> BaseModel:
    if not (path / "model_index.json").is_file():
        raise bad_model(
            path,
            "is a folder without model_index.json, so no diffusers model",
            "Choose a .safetensors file, or the folder that holds model_index.json.",
        )
    index = read_json(path / "model_index.json")
    if str(index.get("_class_name")).startswith("Flux"):
        raise bad_model(path, f"is {OF_DIFFUSERS}", ORIGINAL)
    unet = read_json(path / "unet" / "config.json")
    family = _folder_family(path, index, unet)
    scheduler = path / "scheduler" / "scheduler_config.json"
    schedule = read_json(scheduler) if scheduler.is_file() else {}
    v_prediction = schedule.get("prediction_type") == "v_prediction"
    tensors = [info for part in folder_parts(family) for info in folder_tensors(path, part).values()]
    return BaseModel(
        path=path,
        family=family,
        prediction_type="v" if v_prediction else "epsilon",
        zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr")),
        layout="diffusers",
        title=path.name,
        precision=precision(tensors),
        parameters=parameters(tensors),
        reasons=(
            f"{FAMILIES[family].title}: from model_index.json and unet/config.json",
            "prediction type and zero terminal SNR: "
            + ("from scheduler/scheduler_config.json" if schedule else "epsilon without, as there is no scheduler"),
        ),
    )


def _folder_family(path: Path, index: Mapping[str, Any], unet: Mapping[str, Any]) -> str:
    pipeline = index.get("_class_name", "an unknown pipeline")
    if unet.get("in_channels", 4) != 4:
        raise bad_model(path, f"is a {pipeline} whose U-Net takes {unet['in_channels']} channels", A_BASE)
    if "text_encoder_2" in index and "text_encoder" in index and unet.get("addition_embed_type") == "text_time":
        return "sdxl"
    if "text_encoder" in index and unet.get("addition_embed_type") is None:
        # Only SD2's U-Net has linear projections among those of one text encoder.
        return "sd2" if unet.get("use_linear_projection") else "sd15"
    raise bad_model(path, f"is a {pipeline}, which can't be trained", LATER)


def folder_parts(family: str) -> tuple[str, ...]:
    return ("unet", "vae", *(encoder.folder for encoder in FAMILIES[family].text_encoders))


def folder_tensors(path: Path, part: str) -> dict[str, TensorInfo]:
    """All tensors of one part of a diffusers folder by name. BadInput if it has no safetensors weights.

    Taken is the edition in full precision, else fp16; in one file, else in several.
    """
    stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
    for edition in (".safetensors", "-*.safetensors", ".fp16.safetensors", ".fp16-*.safetensors"):
        files = sorted((path / part).glob(stem + edition))
        if files:
            return {name: info for file in files for name, info in read_header(file).tensors.items()}
    raise bad_model(
        path,
        f"has no weights in safetensors format in its folder {part}",
        "Choose an edition of the model with .safetensors files.",
    )


def read_json(file: Path) -> dict[str, Any]:
    """A diffusers folder's JSON file; BadInput names the file if it is missing or is no JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise bad_model(file.parent, f"has no readable {file.name}", "Download the folder again.")
    return content

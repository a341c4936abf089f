"""What a file is, as a plain table: a base model or a LoRA, with what can be read from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.inspecting.describe_lora import describe_lora
from lora_trainer.inspecting.header import is_folder, read_header
from lora_trainer.inspecting.identify import BaseModel, base_of, identify, parameters, precision
from lora_trainer.inspecting.kinds import LORA, kind_of

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
    "ss_num_train_images",
    "ss_training_comment",
    "software",
)


def describe(path: Path) -> dict[str, Any]:
    """`kind` ("base model", "LoRA", or another kind's name) and what is known of it, in values that JSON can hold.

    BadInput for a file that is no model at all.
    """
    if is_folder(path):
        return _base(identify(path))
    header = read_header(path)
    facts = {
        "file": path.name,
        "size_bytes": path.stat().st_size,
        "precision": precision(header.tensors.values()),
        "parameters": parameters(header.tensors.values()),
        "metadata": {key: header.metadata[key] for key in _SHOWN_METADATA if key in header.metadata},
    }
    kind = kind_of(header.tensors)
    if kind is LORA:
        return {"kind": "LoRA"} | facts | describe_lora(header)
    if kind:
        told = {"family": kind.family, "part": kind.part, "remedy": kind.choose}
        return {"kind": kind.what, **{name: text for name, text in told.items() if text}} | facts
    told = _base(base_of(header))
    return told | facts | told


def _base(base: BaseModel) -> dict[str, Any]:
    return {
        "kind": "base model",
        "file": base.path.name,
        "title": base.title,
        "family": base.family,
        **({"variant": base.variant, "parts": list(base.parts)} if base.variant else {}),
        "prediction_type": base.prediction_type,
        "zero_terminal_snr": base.zero_terminal_snr,
        "layout": base.layout,
        "precision": base.precision,
        "parameters": base.parameters,
        "reasons": list(base.reasons),
    }

"""The taggers that can be had: what kind of model each is, where its files are published, and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """`repository`: on huggingface.co. `files`: with their sizes in MB, about."""

    kind: str
    repository: str
    files: Mapping[str, float]


def _wd(repository: str, megabytes: float) -> Weights:
    return Weights("wd", f"SmilingWolf/{repository}", {"model.onnx": megabytes, "selected_tags.csv": 0.3})


# By the setting `tagger`.
TAGGERS: Mapping[str, Weights] = {
    "wd-v3": _wd("wd-swinv2-tagger-v3", 467),
    "wd-vit-v3": _wd("wd-vit-tagger-v3", 379),
    "wd-convnext-v3": _wd("wd-convnext-tagger-v3", 395),
    "wd-vit-large-v3": _wd("wd-vit-large-tagger-v3", 1261),
    "wd-eva02-large-v3": _wd("wd-eva02-large-tagger-v3", 1260),
    "wd-moat-v2": _wd("wd-v1-4-moat-tagger-v2", 326),
    "wd-swinv2-v2": _wd("wd-v1-4-swinv2-tagger-v2", 455),
    "wd-convnext-v2": _wd("wd-v1-4-convnext-tagger-v2", 388),
    "wd-convnextv2-v2": _wd("wd-v1-4-convnextv2-tagger-v2", 388),
    "wd-vit-v2": _wd("wd-v1-4-vit-tagger-v2", 373),
    "deepdanbooru": Weights("deepdanbooru", "chinoll/deepdanbooru", {"deepdanbooru.onnx": 644, "tags.txt": 0.1}),
    # The smaller blip-image-captioning-base is published as a pickle only, which could run anything when it is read.
    "blip": Weights(
        "blip",
        "Salesforce/blip-image-captioning-large",
        {
            "model.safetensors": 1880,
            "config.json": 0.01,
            "preprocessor_config.json": 0.01,
            "tokenizer.json": 0.7,
        },
    ),
    # Microsoft's own repository needs its code to be run; this is its export, which needs none.
    "florence-2": Weights(
        "florence-2",
        "onnx-community/Florence-2-base-ft",
        {
            "tokenizer.json": 1.4,
            "onnx/vision_encoder.onnx": 367,
            "onnx/embed_tokens.onnx": 158,
            "onnx/encoder_model.onnx": 173,
            "onnx/decoder_model_merged.onnx": 388,
        },
    ),
}

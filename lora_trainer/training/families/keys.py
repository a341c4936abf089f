"""Names of layers in a LoRA file."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

_TEXT = ("CLIPAttention", "CLIPMLP")


def lora_key(prefix: str, module: str) -> str:
    return f"{prefix}_{module.replace('.', '_')}"


def text_encoder_keys(encoder: nn.Module, prefix: str) -> dict[str, str]:
    """Each of the attention's and the MLP's Linear layers of a CLIP -> its name in a LoRA file."""
    return {name: lora_key(prefix, name) for name in layers_below(encoder, _TEXT)}


def layers_below(model: nn.Module, parents: tuple[str, ...]) -> Iterator[str]:
    """Names of all Linear and Conv2d modules inside modules of the classes `parents`, in the model's order."""
    for name, module in model.named_modules():
        if type(module).__name__ in parents:
            for inner, layer in module.named_modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    yield f"{name}.{inner}"

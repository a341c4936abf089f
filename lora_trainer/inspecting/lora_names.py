"""How the tools that train LoRAs name a file's tensors, brought to one form: sd-scripts' and LyCORIS's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# How a tensor's name ends -> what the tensor is.
_ENDS = (
    (r"\.(lora_(?:down|up|mid)\.weight)", r"\1"),
    (r"(?:[._]lora|(?<=_lora\d)|\.lora_linear_layer)\.(down|up)\.weight", r"lora_\1.weight"),  # diffusers, XLabs
    (r"\.lora_A(?:\.\w+)?\.weight", "lora_down.weight"),  # PEFT; diffusers since it uses PEFT
    (r"\.lora_B(?:\.\w+)?\.weight", "lora_up.weight"),
    (r"\.lora_magnitude_vector(?:\.\w+)*", "dora_scale"),
    (
        r"\.(alpha|dora_scale|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t[12])|oft_\w+|on_input"
        r"|(?:weight_)?diff(?:_b)?|[wb]_norm)",
        r"\1",
    ),
)
_END = tuple((re.compile(f"{pattern}$"), what) for pattern, what in _ENDS)

# Whose names a file has: the first whose pattern is found in one of them.
_LAYOUTS = (
    (r"base_model\.model\.|\.lora_[AB]\.\w+\.weight$", "PEFT"),
    (r"(?:double|single)_blocks\.\d+\.processor\.", "XLabs"),
    (r"^diffusion_model\.", "ComfyUI"),
    (r"^lycoris_|\.(?:hada_|lokr_|oft_|on_input$|(?:weight_)?diff|[wb]_norm$)", "LyCORIS"),
    (r"^lora_", "sd-scripts"),
    (r"", "diffusers"),
)

# How a module's name begins -> the part of the model that it is in.
_PARTS = (
    (r"lora_te3_|text_encoder_3\.", "text encoder 3"),
    (r"lora_te2_|text_encoder_2\.", "text encoder 2"),
    (r"lora_te1?_|text_encoder\.|(?=text_model[._])", "text encoder"),
    (
        r"lora_transformer_|transformer\."
        r"|(?:lora_unet_|diffusion_model\.|lycoris_)?(?=(?:double|single|joint|transformer|single_transformer)_blocks)",
        "transformer",
    ),
    (r"(?:lora_unet_|unet\.|diffusion_model\.|lycoris_)?", "unet"),
)
# diffusers' first LoRAs were attention processors, which stood for the projections.
_PROCESSORS = (
    (r"_processor_", "_"),
    (r"(self_attn)_to_(q|k|v|out)$", r"\1_\2_proj"),
    (r"(attn\d_to_out)$", r"\1_0"),
)


@dataclass(frozen=True)
class Name:
    """A tensor of a LoRA: its `module` as the file names it, and `what` it is there ("lora_down.weight")."""

    module: str
    what: str


def parsed(name: str) -> Name | None:
    """The tensor of this name; None if no LoRA has such a tensor."""
    for pattern, what in _END:
        if end := pattern.search(name):
            return Name(name[: end.start()], end.expand(what))
    return None


def is_lora(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names is a LoRA, or of its relatives (LoHa, LoKr ...)."""
    return any(found is not None and found.what != "alpha" for found in map(parsed, names))


def layout(names: Iterable[str]) -> str:
    """Whose key names these are."""
    names = list(names)
    return next(whose for pattern, whose in _LAYOUTS if any(re.search(pattern, name) for name in names))


def place(module: str) -> tuple[str, str]:
    """The part of the model that a file's module is in, and its path there with `_` for `.`."""
    module = module.replace("base_model.model.", "")
    begin, part = next((begin, part) for pattern, part in _PARTS if (begin := re.match(pattern, module)))
    path = module[begin.end() :].replace(".", "_")
    for old, new in _PROCESSORS:
        path = re.sub(old, new, path)
    return part, path

"""The kinds of weights files that are met in a models folder, told apart by the names and shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lora_trainer.inspecting import flux
from lora_trainer.inspecting.header import TensorInfo
from lora_trainer.inspecting.lora_names import is_lora

Tensors = Mapping[str, TensorInfo]

UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_HYPERNETWORK = re.compile(r"\d+\.[01]\.linear")  # by the width that it is for: one network for keys, one for values

A_BASE = "Choose an SD1.5, SD2, SDXL or Flux.1 model that makes pictures from text."
A_WHOLE = "Choose a whole checkpoint, with U-Net, text encoder and VAE in one file."
LATER = "Choose an SD1.5, SD2, SDXL or Flux.1 model."
ITS_BASE = "Choose the base model that it was made for."
OF_DIFFUSERS, ORIGINAL = (
    "a Flux model in the layout of diffusers",
    "Choose it in its original layout, in one file such as flux1-dev.safetensors.",
)


@dataclass(frozen=True)
class Kind:
    """`what` it is, as the end of "is ..."; `choose`: what to take instead, where a base model is wanted.

    `family`: of a base model that can't be trained. `part`: the setting that takes it beside a Flux base.
    """

    what: str
    choose: str
    test: Callable[[Tensors], bool]
    family: str = ""
    part: str = ""


def _any(*starts: str) -> Callable[[Tensors], bool]:
    return lambda tensors: any(name.startswith(starts) for name in tensors)


def _some(*pieces: str) -> Callable[[Tensors], bool]:
    return lambda tensors: any(piece in name for name in tensors for piece in pieces)


def _input_channels(count: int) -> Callable[[Tensors], bool]:
    def test(tensors: Tensors) -> bool:
        names = (UNET_INPUT, "conv_in.weight", "input_blocks.0.0.weight")
        found = next((tensors[name] for name in names if name in tensors), None)
        return found is not None and len(found.shape) == 4 and found.shape[1] == count

    return test


def _of_flux(test: Callable[[Tensors], bool]) -> Callable[[Tensors], bool]:
    """The test of the transformer alone, under the names of Flux's own code."""

    def test_of_file(tensors: Tensors) -> bool:
        transformer = flux.tensors_of("transformer", tensors)
        return bool(transformer) and test(transformer)

    return test_of_file


def _takes(*widths: int) -> Callable[[Tensors], bool]:
    """Whether a token of a Flux transformer has so many numbers; those that make pictures from text take 64."""
    return _of_flux(lambda transformer: flux.inputs(transformer).get("ae", 64) in widths)


def _is_first_of_diffusers(tensors: Tensors) -> bool:
    """Whether it is the first file of a Flux transformer of diffusers: SD3's calls its first layer otherwise."""
    return "x_embedder.weight" in tensors and _some(".attn.add_q_proj.")(tensors)


def _is_embedding(tensors: Tensors) -> bool:
    if "emb_params" in tensors or any(name.startswith("string_to_param.") for name in tensors):
        return True
    return 0 < len(tensors) <= 3 and all(
        len(info.shape) in (1, 2) and info.shape[-1] in (768, 1024, 1280) for info in tensors.values()
    )


LORA = Kind("a LoRA", "Choose the base model here; start_lora continues a LoRA.", is_lora)
# The first that fits says what a file is; what none fits is an unknown model, unless it has a U-Net of four channels.
KINDS = (
    Kind("a file without weights", "Download it again.", lambda tensors: not tensors),
    LORA,
    Kind("a textual inversion embedding", ITS_BASE, _is_embedding),
    Kind("a hypernetwork", ITS_BASE, lambda tensors: any(map(_HYPERNETWORK.match, tensors))),
    Kind("an IP-Adapter", ITS_BASE, _some("ip_adapter.", "image_proj.", "ip_adapter_double_stream_")),
    Kind("Flux Redux, which makes variations of a picture", ITS_BASE, _any("redux_up.", "redux_down.")),
    Kind(
        "a ControlNet",
        ITS_BASE,
        _some("control_model.", "controlnet_", "input_hint_block.", "zero_convs.", "lllite_", "control_add_embedding."),
    ),
    Kind("a T2I-Adapter", ITS_BASE, _any("adapter.body.", "body.0.block1.", "body.0.resnets.", "body.0.in_conv.")),
    Kind("an AnimateDiff motion module", ITS_BASE, _some("motion_modules.")),
    Kind("a Chroma model, which can't be trained", LATER, _some("distilled_guidance_layer.")),
    Kind("a Flux.2 model, which can't be trained", LATER, _some("double_stream_modulation")),
    Kind("a Hunyuan model, which can't be trained", LATER, _some("individual_token_refiner.")),
    Kind("Flux Fill, which fills in pictures", A_BASE, _takes(384)),
    Kind("Flux Depth or Flux Canny, which draw after another picture", A_BASE, _takes(128)),
    Kind(
        OF_DIFFUSERS,
        ORIGINAL,
        lambda tensors: _some("single_transformer_blocks.")(tensors) or _is_first_of_diffusers(tensors),
        family="flux",
    ),
    Kind(
        "a Flux model in a precision that can't be read",
        "Choose it in bf16, fp16, fp8 or NF4.",
        lambda tensors: flux.is_transformer(tensors) and not flux.is_readable(tensors),
        family="flux",
    ),
    Kind(
        "only a piece of a Flux model",
        "Choose the model in one file.",
        lambda tensors: not flux.is_transformer(tensors) and _some("double_blocks.", "single_blocks.")(tensors),
        family="flux",
    ),
    Kind(
        "a Stable Diffusion 3 model, which can't be trained",
        LATER,
        _some("joint_blocks.", ".attn.add_q_proj."),
        family="sd3",
    ),
    Kind(
        "a Stable Cascade model, which can't be trained",
        LATER,
        _some("clip_txt_mapper.", "down_blocks.1.0.channelwise.", "down_blocks.0.0.channelwise."),
    ),
    Kind(
        "the SDXL refiner, which can't be trained",
        "Choose an SDXL base checkpoint.",
        _any("conditioner.embedders.0.model."),
    ),
    Kind(
        "an EDM model (CosXL or Playground), which can't be trained", LATER, _any("edm_mean", "edm_std", "edm_vpred.")
    ),
    Kind("an inpainting model", A_BASE, _input_channels(9)),
    Kind("an InstructPix2Pix model, which edits pictures", A_BASE, _input_channels(8)),
    Kind("a latent upscaler model", A_BASE, _input_channels(7)),
    Kind("a depth-to-image model", A_BASE, _input_channels(5)),
    Kind("an upscaler (ESRGAN)", A_BASE, _some("conv_first.weight", "RRDB_trunk.", "model.1.sub.", "conv_body.weight")),
)
# Parts of a base model by themselves; looked for only in a file without the whole U-Net under its prefix.
PARTS = (
    Kind(
        "T5-XXL in a precision that can't be read",
        "Choose t5xxl_fp16 or t5xxl_fp8_e4m3fn.",
        lambda tensors: flux.is_t5xxl(tensors) and not flux.is_readable(flux.tensors_of("t5xxl", tensors)),
    ),
    Kind(
        "the text encoder T5-XXL",
        "Choose Flux's transformer here; the setting t5xxl takes this file.",
        flux.is_t5xxl,
        part="t5xxl",
    ),
    Kind(
        "the text encoder CLIP-L",
        "Choose a whole checkpoint or Flux's transformer here; the setting clip_l takes this file.",
        flux.is_clip_l,
        part="clip_l",
    ),
    Kind(
        "the autoencoder of Flux or SD3",
        "Choose Flux's transformer here; the setting ae takes this file.",
        flux.is_ae,
        part="ae",
    ),
    Kind(
        "a U-Net alone, without text encoder and VAE",
        A_WHOLE,
        _any("input_blocks.0.0.", "down_blocks.0.resnets.", "model.diffusion_model.down_blocks.0."),
    ),
    Kind(
        "a VAE alone",
        "Choose a checkpoint here; the setting vae takes a VAE.",
        _any("first_stage_model.", "decoder.conv_in.", "decoder.mid.", "decoder.mid_block."),
    ),
    Kind(
        "a text encoder alone",
        A_WHOLE,
        _any(
            "text_model.",
            "transformer.resblocks.",
            "transformer.text_model.",
            "encoder.block.0.",
            "cond_stage_model.",
            "conditioner.embedders.",
        ),
    ),
)


def kind_of(tensors: Tensors) -> Kind | None:
    """What a file is when it is no base model of a family that is trained; None for a base."""
    found = next((kind for kind in KINDS if kind.test(tensors)), None)
    if found or UNET_INPUT in tensors or flux.is_transformer(tensors):
        return found
    unknown = Kind("no kind of model that is known here", LATER, lambda _: True)
    return next((kind for kind in PARTS if kind.test(tensors)), unknown)

"""The U-Net's blocks in sd-scripts' network arguments: lists with commas, and the names of shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lora_trainer.config.interchange.conversion import Changed, Unsupported
from lora_trainer.config.interchange.given import Given
from lora_trainer.config.networks import BLOCKS
from lora_trainer.config.settings import Config

SHAPES: dict[str, Callable[[float], float]] = {  # of a part's blocks, the first at 0 and the last at 1
    "cosine": lambda x: math.cos(x * math.pi / 2),
    "sine": lambda x: math.sin(x * math.pi / 2),
    "linear": lambda x: x,
    "reverse_linear": lambda x: 1 - x,
    "zeros": lambda x: 0.0,
}
OURS = {"cosine": "cosine", "sine": "sine", "linear": "linear", "reverse_linear": "reverse"}


# ---- written


def block_arguments(config: Config) -> dict[str, str]:
    """The block-wise settings of a config whose family's defaults are filled in, as `network_args`."""
    if not config.block_wise or config.family == "flux":
        return {}
    arguments = _written_weights(config.block_lr_weights, config.family)
    if config.block_ranks:
        ratio = (config.alpha or 1) / config.rank
        alphas = config.block_alphas or tuple(rank * ratio for rank in config.block_ranks)
        arguments["block_dims"] = _with_ends(config.block_ranks, config.family)
        arguments["block_alphas"] = _with_ends(alphas, config.family)
    return arguments


def _written_weights(weights: tuple[float, ...] | str | None, family: str) -> dict[str, str]:
    if weights is None:
        return {}
    if isinstance(weights, str):
        shape, _, lift = weights.partition("+")
        theirs = {ours: theirs for theirs, ours in OURS.items()}
        text = f"zeros+{1 + float(lift or 0):g}" if shape == "flat" else theirs[shape] + (lift and f"+{lift}")
        return {"down_lr_weight": text, "up_lr_weight": text}
    down, mid, up = BLOCKS[family]
    numbers = weights[1:-1] if len(weights) == down + mid + up + 2 else weights
    parts = {"down": numbers[:down], "mid": numbers[down : down + mid], "up": numbers[down + mid :]}
    return {f"{part}_lr_weight": _listed(values) for part, values in parts.items()}


def _with_ends(numbers: tuple[float, ...], family: str) -> str:
    """For SDXL sd-scripts counts the embeddings and the output too, which have no LoRA."""
    return _listed((1, *numbers, 1) if family == "sdxl" else numbers)


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:.10g}" for number in numbers)


# ---- read


def _block_wise(source: Given) -> Any:
    arguments = ("down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_dims", "block_alphas")
    if any(source.get(f"network_args.{name}") for name in arguments) and not (_is_lycoris(source) or _is_flux(source)):
        return Changed(True, "blocks differ, as the lists say")
    return False


def _is_lycoris(source: Given) -> bool:
    return "lycoris" in str(source.get("network_module"))


def _is_flux(source: Given) -> bool:
    return source.family == "flux"


def _refuse_lists(source: Given) -> None:
    """Of kinds of network that treat all blocks alike."""
    if _is_lycoris(source):
        raise Unsupported("LyCORIS treats all blocks alike, and so does the config")
    if _is_flux(source):
        raise Unsupported("sd-scripts has no such lists for Flux either")


def _weights(source: Given) -> Any:
    """A shape where both halves have the same one, else a number for each block."""
    given = {part: source.get(f"network_args.{part}_lr_weight") for part in ("down", "mid", "up")}
    threshold = source.number("network_args.block_lr_zero_threshold")
    if not any(given.values()):
        return None
    _refuse_lists(source)
    shape, plus, lift = str(given["down"]).partition("+")
    if given["down"] == given["up"] and shape in OURS and not given["mid"] and not threshold:
        return OURS[shape] + plus + lift
    counts = BLOCKS[_blocks_of(source, given)]
    numbers = [number for text, count in zip(given.values(), counts) for number in _part(text, count)]
    return tuple(number if number > threshold else 0.0 for number in numbers)


def _blocks_of(source: Given, given: dict[str, Any]) -> str:
    """The family whose blocks are meant; where nothing says, the lists' length tells."""
    if source.family in BLOCKS:
        return source.family
    lengths = [len(str(given[part]).split(",")) for part in ("down", "up")]
    return "sdxl" if 9 in lengths else "sd15"


def _part(text: Any, count: int) -> list[float]:
    """The weights of one part; what is missing is 1."""
    shape, _, lift = str(text or "").partition("+")
    try:
        if shape in SHAPES:
            return [SHAPES[shape](index / max(1, count - 1)) + float(lift or 0) for index in range(count)]
        numbers = [float(number or 0) for number in str(text).split(",")] if text else []
    except ValueError:
        raise Unsupported("is not a list of numbers, and all blocks learn alike") from None
    return (numbers + [1.0] * count)[:count]


def _ranks(source: Given) -> Any:
    ranks = _numbers(source, "block_dims")
    if ranks is None and (alphas := _numbers(source, "block_alphas")):
        return Changed((int(source.number("network_dim")),) * len(alphas), "each block has network_dim")
    return ranks and tuple(int(rank) for rank in ranks)


def _alphas(source: Given) -> Any:
    alphas = _numbers(source, "block_alphas")
    if alphas is None and (ranks := _numbers(source, "block_dims")):
        return Changed((source.number("network_alpha"),) * len(ranks), "each block has network_alpha")
    return alphas


def _numbers(source: Given, name: str) -> tuple[float, ...] | None:
    text = source.get(f"network_args.{name}")
    if not text:
        return None
    _refuse_lists(source)
    try:
        numbers = tuple(float(number) for number in str(text).split(","))
    except ValueError:
        raise Unsupported("is not a list of numbers, and all blocks are alike") from None
    return numbers[1:-1] if len(numbers) == 23 else numbers


BLOCK_READERS: dict[str, Callable[[Given], Any]] = {
    "block_wise": _block_wise,
    "block_lr_weights": _weights,
    "block_ranks": _ranks,
    "block_alphas": _alphas,
}

"""The peak of GPU memory of Flux LoRA training, computed without a GPU: `python -m benchmarks.flux_memory --json OUT`.

The training's own code runs at full width and depth on the meta device, whose tensors have shapes and no memory, and
every storage is followed from the operation that makes it to its end. Weights that wait in host memory are real
tensors of the CPU that nobody writes, and so take none either. What a GPU's libraries take for themselves is not in it.
With `--measure` the same steps run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_trainer.inspecting.facts import FAMILIES
from lora_trainer.training.families.flux.family import Flux
from lora_trainer.training.families.flux.transformer import FluxConfig, FluxTransformer
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.held import BLOCK, FP8, AsIs, Fp8, Nf4, Weight, put_into
from lora_trainer.training.lora import LoraNetwork, Target
from lora_trainer.training.loss import denoising_loss
from lora_trainer.training.optimizers import build_optimizer
from lora_trainer.training.swapping import stream, swap_blocks, waiting

GIB = 2**30
FULL = FluxConfig(
    hidden=3072, mlp=12288, context=4096, pooled=768, double_blocks=19, single_blocks=38, guidance=True, latent=64
)
T5_XXL = {"d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24, "vocab_size": 32128}
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip
HOLDS = ("", "fp8", "nf4")
NAMES = {"": "bf16", "fp8": "fp8", "nf4": "NF4"}
SWAPS = (0, 7, 14, 21, 28, 35)
SIZES = (512, 1024)
CARDS = (12, 16, 24)  # GiB
ASIDE = 1.5  # GiB: what CUDA's libraries take, what the allocator cannot use, and a little for the desktop


class Ledger(TorchDispatchMode):
    """Follows the storages on a device that operations make while it is active: `now` and at the `peak`, in bytes."""

    def __init__(self, device: str = "meta"):
        super().__init__()
        self._device = device
        self._alive: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.count(tree_leaves(made))
        return made

    def count(self, things: Iterable[object]) -> None:
        """Those of them that are tensors, and are not known yet."""
        for thing in things:
            if isinstance(thing, Tensor) and thing.device.type == self._device:
                self._follow(thing.untyped_storage())

    def _follow(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place not in self._alive:
            self._alive.add(place)
            weakref.finalize(storage, self._ended, place, size).atexit = False
            self.now += size
            self.peak = max(self.peak, self.now)

    def _ended(self, place: int, size: int) -> None:
        self._alive.discard(place)
        self.now -= size


@dataclass(frozen=True)
class Peak:
    """GiB of a training step: the peak, and the weights of the base that lie on the GPU all the time."""

    hold: str
    swap: int
    size: int
    peak: float
    weights: float


def step_peak(
    hold: str,
    swap: int,
    size: int,
    rank: int = 16,
    config: FluxConfig = FULL,
    text: int = 512,
    device: str = "meta",
    dtype: torch.dtype = torch.bfloat16,
    optimizer: str = "AdamW8bit",
) -> Peak:
    """Two steps of a picture of size x size pixels: the second has the optimizer's state beside its activations."""
    ledger, model = Ledger(device), flux(config, hold, swap, device, dtype)
    ledger.count(model.parameters())
    weights = ledger.now
    with ledger, fused_attention():
        family = Flux(FAMILIES["flux"])
        targets = [Target(model, name, key, rank, rank) for name, key in family.denoiser_targets(model).items()]
        network = LoraNetwork(targets)
        model.enable_gradient_checkpointing()
        swap_blocks(model, swap, torch.device(device))
        learner = build_optimizer(optimizer, [{"params": network.parameters(), "lr": 1e-4}])
        noisy, target = torch.empty(2, 1, config.latent // 4, size // 8, size // 8, device=device)
        conditioning = Conditioning(
            torch.empty(1, text, config.context, device=device, dtype=dtype),
            torch.empty(1, config.pooled, device=device, dtype=dtype),
        )
        for _ in range(2):
            timesteps = torch.empty(1, device=device)
            velocity = family.denoise(model, noisy.to(dtype), timesteps, conditioning).float()
            denoising_loss(velocity, target, kind="l2").mean().backward()
            learner.step()
            learner.zero_grad(set_to_none=True)
            del velocity
    return Peak(hold, swap, size, ledger.peak / GIB, weights / GIB)


def measured_peak(hold: str, swap: int, size: int) -> Peak:
    """The same steps on a GPU, by what its allocator gave."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found = step_peak(hold, swap, size, device="cuda")
    return replace(found, peak=torch.cuda.max_memory_allocated() / GIB)


def flux(config: FluxConfig, hold: str, swap: int, device: str, dtype: torch.dtype) -> FluxTransformer:
    """As a run loads it, without a file: no weight is written."""
    with torch.device("meta"):
        model = FluxTransformer(config).to(dtype).requires_grad_(False).eval()
    away = waiting(config.double_blocks, config.single_blocks, swap)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and "_blocks." in name:
            home = "cpu" if ".".join(name.split(".")[:2]) in away else device
            put_into(module, unwritten(tuple(module.weight.shape), hold, dtype, home), dtype)
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if not isinstance(module, nn.ParameterList):
                there = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=False)
                setattr(module, leaf, there)
    return model


def unwritten(shape: tuple[int, ...], hold: str, dtype: torch.dtype, device: str) -> Weight:
    """A weight held as `hold` says, whose numbers nobody has set."""
    if hold == "nf4":
        count = shape[0] * shape[1]
        packed = torch.empty(count // 2, 1, dtype=torch.uint8, device=device)
        return Weight((packed, torch.empty(-(-count // BLOCK), device=device)), Nf4(shape))
    form, lying = (Fp8(), FP8) if hold == "fp8" else (AsIs(), dtype)
    return Weight((torch.empty(shape, dtype=lying, device=device),), form)


@contextmanager
def fused_attention() -> Iterator[None]:
    """On the meta device torch computes attention's weights, which no GPU's fused attention keeps in memory."""
    real = torch.nn.functional.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        if q.device.type != "meta" or attn_mask is not None:
            return real(q, k, v, attn_mask=attn_mask, **options)
        return torch.ops.aten._scaled_dot_product_flash_attention.default(q, k, v)[0]

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attention):
        yield


@torch.no_grad()
def text_peak(streamed: bool) -> float:
    """GiB while T5-XXL in bf16 encodes a caption of 512 tokens, with CLIP-L beside it; `streamed`: its blocks wait."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    ledger, clip_config = Ledger(), CLIPTextConfig(num_hidden_layers=12, hidden_size=768, intermediate_size=3072)
    with torch.device("meta"):
        clip_l = CLIPTextModel(clip_config).to(torch.bfloat16)
        t5 = T5EncoderModel(T5Config(**T5_XXL, feed_forward_proj="gated-gelu")).to(torch.bfloat16)
    t5.requires_grad_(False)
    if streamed:
        for layer in t5.encoder.block.modules():
            if isinstance(layer, nn.Linear):
                put_into(layer, unwritten(tuple(layer.weight.shape), "", torch.bfloat16, "cpu"), torch.bfloat16)
        stream(t5, t5.encoder.block, torch.device("meta"))
    ledger.count([*clip_l.parameters(), *t5.parameters()])
    with ledger:
        t5(torch.empty(1, 512, dtype=torch.long, device="meta"))
    return ledger.peak / GIB


@torch.no_grad()
def autoencoder_peak(size: int, decode: bool) -> float:
    """GiB while a picture of size x size pixels is encoded, or decoded, in bf16."""
    from diffusers import AutoencoderKL

    ledger = Ledger()
    with torch.device("meta"):
        vae = AutoencoderKL(**AUTOENCODER).to(torch.bfloat16)
    ledger.count((vae.decoder if decode else vae.encoder).parameters())
    channels, side = (16, size // 8) if decode else (3, size)
    with ledger, fused_attention():
        picture = torch.empty(1, channels, side, side, dtype=torch.bfloat16, device="meta")
        vae.decode(picture) if decode else vae.encode(picture)
    return ledger.peak / GIB


def table(peaks: Sequence[Peak]) -> str:
    """Rows by precision and swapped blocks, a column for each size; Markdown."""
    found = {(peak.hold, peak.swap, peak.size): peak for peak in peaks}
    lines = ["| base | swap_blocks | weights on the GPU | " + " | ".join(f"{size} px" for size in SIZES) + " |"]
    lines.append("|---|--:|--:|" + "--:|" * len(SIZES))
    for hold in HOLDS:
        for swap in SWAPS:
            row = [found[hold, swap, size] for size in SIZES]
            cells = [f"{peak:.1f}" for peak in (row[0].weights, *(peak.peak for peak in row))]
            lines.append(f"| {NAMES[hold]} | {swap} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cards(peaks: Sequence[Peak]) -> str:
    """The fewest blocks in host memory with which a step fits, for each card and precision; Markdown."""
    columns = [(size, hold) for size in SIZES for hold in HOLDS]
    lines = ["| card | " + " | ".join(f"{size} px, {NAMES[hold]}" for size, hold in columns) + " |"]
    lines.append("|--:|" + "--:|" * len(columns))
    for card in CARDS:
        lines.append(f"| {card} GB | " + " | ".join(_fewest(peaks, card, *column) for column in columns) + " |")
    return "\n".join(lines)


def _fewest(peaks: Sequence[Peak], card: int, size: int, hold: str) -> str:
    fitting = [peak for peak in peaks if (peak.size, peak.hold) == (size, hold) and peak.peak + ASIDE <= card]
    best = min(fitting, key=lambda peak: peak.swap, default=None)
    return "no" if best is None else f"{best.swap} ({best.peak:.1f})"


def figures(peak_of: Callable[[str, int, int], Peak]) -> dict[str, Any]:
    return {
        "peaks": [peak_of(hold, swap, size) for hold in HOLDS for swap in SWAPS for size in SIZES],
        "text": {"t5": text_peak(False), "streamed": text_peak(True)},
        "autoencoder": {
            f"{'decode' if decode else 'encode'} {size}": autoencoder_peak(size, decode)
            for decode in (False, True)
            for size in SIZES
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flux_memory", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the figures there")
    parser.add_argument("--measure", action="store_true", help="the steps on this machine's NVIDIA GPU, not computed")
    chosen = parser.parse_args(arguments)
    found = figures(measured_peak if chosen.measure else step_peak)
    print(f"{table(found['peaks'])}\n\n{cards(found['peaks'])}\n")
    for name in ("text", "autoencoder"):
        print(name, {key: round(value, 2) for key, value in found[name].items()})
    if chosen.json:
        facts = {**found, "peaks": [asdict(peak) for peak in found["peaks"]]}
        chosen.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

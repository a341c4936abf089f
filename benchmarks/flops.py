"""The work of a training step, counted, and the speed of a matrix product, measured."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

from lora_trainer.inspecting import identify
from lora_trainer.training.device import DTYPES
from lora_trainer.training.families import family_of
from lora_trainer.training.families.text import Conditioning


def step_flops(base: Path, size: int, batch: int) -> float:
    """Floating point operations of a step that trains a LoRA of the U-Net, `size` pixels square.

    The forward pass, once more for the gradient of each layer's input (the base's weights get none), and a third time
    for attention, whose both factors get one. The LoRA's own are left out.
    """
    found = identify(base)
    family = family_of(found)
    unet = family.load_denoiser(found, torch.float32, "meta")
    unet.set_attn_processor(AttnProcessor())  # plain products, which can be counted
    facts, config = family.facts, unet.config
    with torch.device("meta"):
        noisy = torch.empty(batch, 4, size // 8, size // 8)
        pooled = torch.empty(batch, config.projection_class_embeddings_input_dim - 6 * 256) if facts.sgm_names else None
        text = Conditioning(torch.empty(batch, 77, config.cross_attention_dim), pooled)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            family.denoise(unet, noisy, torch.empty(batch), text, torch.empty(batch, 6))
    by_kind = counter.get_flop_counts()["Global"]
    attention = sum(count for kind, count in by_kind.items() if "bmm" in str(kind))
    return 2.0 * sum(by_kind.values()) + attention


def product_speed(precision: str, size: int = 2048, runs: int = 15) -> float:
    """Operations per second of the fastest of `runs` products of square matrices."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(2, size, size, device=device, dtype=DTYPES[precision])
    best = float("inf")
    for _ in range(runs):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best

"""Where a run computes and in which precision: torch is asked what there is, nothing is assumed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lora_trainer.config import BadInput, Problem

DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """`compute`: of activations and of the frozen base. `vae`: of the autoencoder. `scaled`: gradients are scaled.

    `name`: no, fp16 or bf16, as the setting mixed_precision has it. `fp8`: the model that denoises is held in 8 bits.
    """

    name: str
    compute: torch.dtype
    vae: torch.dtype
    scaled: bool
    fp8: bool = False


def choose_precision(mixed_precision: str, base_precision: str, device: torch.device) -> Precision:
    """What "auto" means on this device: bf16 where it is computed natively, else fp16, float32 on a CPU.

    The base is kept in the precision it is computed in, or in fp8. The VAE never runs in fp16, where SDXL's gives NaN.
    BadInput for what this device cannot do.
    """
    mixed = _best(device) if mixed_precision == "auto" else mixed_precision
    if mixed == "fp16" and device.type != "cuda":
        raise BadInput(
            Problem(
                "mixed_precision",
                "fp16",
                f"training runs on the {device.type.upper()} here, which has no scaled fp16",
                "Use bf16 or no.",
            )
        )
    compute, fp8 = DTYPES[mixed], base_precision == "fp8"
    if fp8 and not takes_fp8(device):
        raise BadInput(
            Problem(
                "base_precision",
                "fp8",
                f"training runs on the {device.type.upper()} here, which has no 8-bit numbers",
                "Use auto.",
            )
        )
    if not fp8 and base_precision not in ("auto", {"no": "fp32"}.get(mixed, mixed)):
        raise BadInput(
            Problem(
                "base_precision",
                base_precision,
                f"the base is kept in fp8 or in the precision it is computed in, here {mixed}",
                "Use auto, and choose it by mixed_precision, or fp8.",
            )
        )
    return Precision(mixed, compute, torch.bfloat16 if mixed == "bf16" else torch.float32, mixed == "fp16", fp8)


def takes_fp8(device: torch.device) -> bool:
    """Whether weights can be held in 8 bits there: they only have to be stored and converted."""
    return device.type in ("cpu", "cuda")


def _best(device: torch.device) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "no"


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory so far in MiB: of the process (`peak_rss_mb`) and, on CUDA, of the GPU (`peak_gpu_mb`)."""
    found = {"peak_rss_mb": _peak_rss()}
    if device.type == "cuda":
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def _peak_rss() -> float:
    import psutil

    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset / 2**20
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20

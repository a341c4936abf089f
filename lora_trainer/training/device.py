"""Where a run computes and in which precision: torch is asked what there is, nothing is assumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from lora_trainer.config import BadInput, Problem
from lora_trainer.training.held import BLOCK, round_to
from lora_trainer.training.plan import Plan

DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Precision:
    """`compute`: of activations and of the frozen base. `vae`: of the autoencoder. `scaled`: gradients are scaled.

    `name`: no, fp16 or bf16, as the setting mixed_precision has it. `hold`: how the weights of the model that denoises
    are held, "fp8", "nf4", or None: as they are computed with.
    """

    name: str
    compute: torch.dtype
    vae: torch.dtype
    scaled: bool
    hold: str | None = None


def precision_of(plan: Plan, device: torch.device) -> Precision:
    """What the plan's settings come to on this device."""
    own = plan.base.precision if plan.base.family == "flux" else ""
    return choose_precision(plan.config.mixed_precision, plan.config.base_precision, device, own)


def choose_precision(mixed_precision: str, base_precision: str, device: torch.device, own: str = "") -> Precision:
    """What "auto" means on this device: bf16 where it is computed natively, else fp16, float32 on a CPU.

    The base is held in the precision it is computed in, or in 8 or 4 bits; "auto" leaves a file's `own` ones where it
    has such and the device takes them. The VAE never runs in fp16, where SDXL's gives NaN.
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
    hold = _hold(base_precision, mixed, device, own)
    vae = torch.bfloat16 if mixed == "bf16" else torch.float32
    return Precision(mixed, DTYPES[mixed], vae, mixed == "fp16", hold)


def _hold(base_precision: str, mixed: str, device: torch.device, own: str) -> str | None:
    if own == "nf4" and (problem := _lacking_nf4(device)):
        remedy = "Choose a base in bf16 or fp8, or install bitsandbytes."
        raise BadInput(Problem("base_model", None, f"has weights in NF4, which {problem}", remedy))
    if base_precision == "auto":
        return own if own in LACKING and not LACKING[own](device) else None
    if base_precision in LACKING:
        if problem := LACKING[base_precision](device):
            raise BadInput(Problem("base_precision", base_precision, problem, "Use auto."))
        return base_precision
    if base_precision != {"no": "fp32"}.get(mixed, mixed):
        raise BadInput(
            Problem(
                "base_precision",
                base_precision,
                f"the base is held in 8 or 4 bits or in the precision it is computed in, here {mixed}",
                "Use auto, and choose it by mixed_precision, or fp8 or nf4.",
            )
        )
    return None


def _lacking_fp8(device: torch.device) -> str:
    if takes_fp8(device):
        return ""
    return f"training runs on the {device.type.upper()} here, which has no 8-bit numbers"


@cache
def _lacking_nf4(device: torch.device) -> str:
    """bitsandbytes runs on some devices only, which depends on its version and on its build: one weight tells."""
    try:
        round_to("nf4", torch.ones(BLOCK, BLOCK, device=device)).spread(torch.float32)
    except ImportError:
        return "needs the package bitsandbytes, which is not installed"
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        return f"does not run on the {device.type.upper()} here with the bitsandbytes installed ({first})"
    return ""


# Why weights cannot be held so on a device; "" where they can.
LACKING: dict[str, Callable[[torch.device], str]] = {"fp8": _lacking_fp8, "nf4": _lacking_nf4}


def takes_fp8(device: torch.device) -> bool:
    """Whether weights can be held in 8 bits there: they only have to be stored and converted."""
    return device.type in ("cpu", "cuda")


def memory_of(device: torch.device) -> int:
    """Bytes that a GPU with memory of its own has; 0 of a device that shares the computer's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0


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

"""The samplers that previews are drawn with, under the names that the WebUI gives them."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from lora_trainer.training.choices import chosen
from lora_trainer.training.noise_schedule import FIRST_BETA, LAST_BETA, TIMESTEPS, NoiseSchedule

# The value that diffusers itself gives a signal of 0, so that a sigma stays finite.
LEAST_ALPHA_CUMPROD = 2.0**-24

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
# As Stable Diffusion's own sampling scripts set them.
LEADING = {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}

SAMPLERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "Euler a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "Euler": (diffusers.EulerDiscreteScheduler, {}),
    "Heun": (diffusers.HeunDiscreteScheduler, {}),
    "DPM2": (diffusers.KDPM2DiscreteScheduler, {}),
    "DPM2 Karras": (diffusers.KDPM2DiscreteScheduler, KARRAS),
    "DPM2 a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "DPM2 a Karras": (diffusers.KDPM2AncestralDiscreteScheduler, KARRAS),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, KARRAS),
    "DPM++ 2M SDE": (diffusers.DPMSolverMultistepScheduler, SDE),
    "DPM++ 2M SDE Karras": (diffusers.DPMSolverMultistepScheduler, SDE | KARRAS),
    "DDIM": (diffusers.DDIMScheduler, LEADING | {"clip_sample": False}),
    "PLMS": (diffusers.PNDMScheduler, LEADING | {"skip_prk_steps": True}),
    # bh1 is not finite for a last step to a sigma of 0, and the original takes none.
    "UniPC": (
        diffusers.UniPCMultistepScheduler,
        {"solver_order": 3, "solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ),
}


def names() -> tuple[str, ...]:
    return tuple(SAMPLERS)


def build_sampler(name: str, prediction_type: str = "epsilon", zero_terminal_snr: bool = False) -> SchedulerMixin:
    """A diffusers scheduler on Stable Diffusion's betas; prediction_type is "epsilon" or "v".

    With zero terminal SNR the betas are rescaled and the steps start at the last timestep (Lin et al. 2024).
    Raises BadInput for an unknown name.
    """
    scheduler, options = chosen(SAMPLERS, name, "preview_sampler")
    if zero_terminal_snr:
        options = options | {"trained_betas": _zero_terminal_betas(), "timestep_spacing": "trailing"}
    return scheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=FIRST_BETA,
        beta_end=LAST_BETA,
        beta_schedule="scaled_linear",
        prediction_type={"epsilon": "epsilon", "v": "v_prediction"}[prediction_type],
        **options,
    )


def build_flow_sampler(steps: int, shift: float) -> diffusers.FlowMatchEulerDiscreteScheduler:
    """Euler's method along a flow, from noise to the picture, with `steps` levels that are even before their shift.

    `timesteps` are 1000 times the levels, in float32.
    """
    sampler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS, shift=shift)
    sampler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    return sampler


def set_steps(sampler: Any, steps: int) -> None:
    """Spreads `steps` over the sampler's timesteps, to be gone through from the first.

    Where timesteps repeat (Karras' with zero terminal SNR), diffusers would start at the second and run over the end.
    """
    sampler.set_timesteps(steps)
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(0)


def _zero_terminal_betas() -> list[float]:
    left = NoiseSchedule(zero_terminal_snr=True).alphas_cumprod.clamp(min=LEAST_ALPHA_CUMPROD).tolist()
    return [1 - after / before for before, after in zip([1.0, *left], left)]

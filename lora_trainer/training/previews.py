"""Pictures drawn by the model in training, in the WebUI's words: sampler names, weight syntax, infotext."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from lora_trainer.files import written_whole
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.flow_schedule import size_shift
from lora_trainer.training.plan import Plan, filled
from lora_trainer.training.samplers import build_flow_sampler, build_sampler, set_steps

Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class Preview:
    """One picture to draw. `width` and `height` in pixels; `sampler` and `scheduler` by the WebUI's names.

    Without a negative prompt the model is not asked a second time. `guidance`: the scale that FLUX.1 dev takes as an
    input, Forge's "Distilled CFG Scale".
    """

    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    cfg: float
    sampler: str
    seed: int
    scheduler: str = ""
    guidance: float | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What it is drawn by."""
        return (self.prompt,) if self.negative_prompt is None else (self.prompt, self.negative_prompt)

    def infotext(self, facts: Mapping[str, object]) -> str:
        """The text that the WebUI's PNG Info reads back; `facts` are added at its end."""
        negative = f"Negative prompt: {self.negative_prompt}\n" if self.negative_prompt else ""
        settings: dict[str, object] = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            **({"Schedule type": self.scheduler} if self.scheduler else {}),
            "CFG scale": f"{self.cfg:g}",
            **({} if self.guidance is None else {"Distilled CFG Scale": f"{self.guidance:g}"}),
            "Seed": self.seed,
            "Size": f"{self.width}x{self.height}",
            **facts,
        }
        return f"{self.prompt}\n{negative}" + ", ".join(f"{key}: {_quoted(value)}" for key, value in settings.items())


def previews_of(plan: Plan) -> tuple[Preview, ...]:
    """The previews that the settings describe, drawn when due or asked for; without prompts, the first caption's."""
    config = plan.config
    prompts = config.preview_prompts or (plan.pictures[0].caption,)
    width, height = filled(config.preview_size)
    usual = Preview(
        prompt="",
        negative_prompt=config.negative_prompt,
        width=width,
        height=height,
        steps=config.preview_steps,
        cfg=config.preview_cfg,
        sampler=config.preview_sampler,
        seed=config.preview_seed,
    )
    if plan.base.family == "flux":
        usual = _of_flux(usual, config.preview_guidance if plan.base.variant == "dev" else None)
    return tuple(replace(usual, prompt=prompt.replace("{trigger}", config.trigger_word)) for prompt in prompts)


def _of_flux(preview: Preview, guidance: float | None) -> Preview:
    """As Forge draws with Flux: by one sampler, and without a second pass for a negative prompt."""
    return replace(preview, negative_prompt=None, cfg=1.0, sampler="Euler", scheduler="Simple", guidance=guidance)


@torch.no_grad()
def sample(
    preview: Preview, denoise: Denoise, positive: Conditioning, negative: Conditioning, *,
    prediction_type: str, zero_terminal_snr: bool, device: torch.device, channels: int = 4,
) -> Tensor:  # fmt: skip
    """The latents (channels, height/8, width/8) of one preview.

    `denoise(latents (B, ...), timesteps (B,), conditioning)` predicts what `prediction_type` says. Classifier-free
    guidance (Ho and Salimans 2022) runs both halves in one batch; at CFG 1 the negative prompt has no part.
    """
    sampler = build_sampler(preview.sampler, prediction_type, zero_terminal_snr)
    set_steps(sampler, preview.steps)
    generator = torch.Generator().manual_seed(preview.seed)
    shape = (1, channels, preview.height // 8, preview.width // 8)
    latents = torch.randn(shape, generator=generator) * sampler.init_noise_sigma
    guided = preview.cfg != 1
    conditioning = _pair(negative, positive) if guided else positive
    for timestep in sampler.timesteps:
        noisy = sampler.scale_model_input(latents, timestep).to(device)
        noisy = torch.cat([noisy, noisy]) if guided else noisy
        prediction = denoise(noisy, timestep.to(device).expand(len(noisy)), conditioning).float().cpu()
        if guided:
            without, with_prompt = prediction.chunk(2)
            prediction = without + preview.cfg * (with_prompt - without)
        latents = sampler.step(prediction, timestep, latents, **_draws(sampler, generator)).prev_sample
    return latents[0]


@torch.no_grad()
def sample_flow(
    preview: Preview, denoise: Denoise, conditioning: Conditioning, *, device: torch.device, channels: int = 16
) -> Tensor:
    """The latents (channels, height/8, width/8) of one preview by a flow model: along its velocities by Euler's method.

    `denoise` is given timesteps in 0..1000. As Flux's own sampler: a preview with guidance has its noise levels shifted
    by its size, and one without, of FLUX.1 schnell, has them evenly spaced.
    """
    height, width = preview.height // 8, preview.width // 8
    shift = 1.0 if preview.guidance is None else size_shift(height, width)
    sampler = build_flow_sampler(preview.steps, shift)
    latents = torch.randn((1, channels, height, width), generator=torch.Generator().manual_seed(preview.seed))
    for timestep in sampler.timesteps:
        velocity = denoise(latents.to(device), timestep.to(device).expand(1), conditioning).float().cpu()
        latents = sampler.step(velocity, timestep, latents).prev_sample
    return latents[0]


def save_preview(path: Path, pixels: np.ndarray, infotext: str) -> None:
    """uint8 pixels (H, W, 3) as a PNG with the infotext where the WebUI looks for it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", infotext)
    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)


def _pair(negative: Conditioning, positive: Conditioning) -> Conditioning:
    pooled = None
    if negative.pooled is not None and positive.pooled is not None:
        pooled = torch.cat([negative.pooled, positive.pooled])
    return Conditioning(torch.cat([negative.context, positive.context]), pooled)


def _draws(sampler: object, generator: torch.Generator) -> dict[str, torch.Generator]:
    """Samplers that draw noise on the way take the preview's own generator; the others have no such argument."""
    step = sampler.step  # type: ignore[attr-defined]
    return {"generator": generator} if "generator" in inspect.signature(step).parameters else {}


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(letter in text for letter in ',:\n"') else text

"""Pictures drawn by the model in training, in the WebUI's words: sampler names, weight syntax, infotext."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from lora_trainer.files import written_whole
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.plan import Plan, filled
from lora_trainer.training.samplers import build_sampler, set_steps

Denoise = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class Preview:
    """One picture to draw. `width` and `height` in pixels; `sampler` by the WebUI's name."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    steps: int
    cfg: float
    sampler: str
    seed: int

    def infotext(self, facts: Mapping[str, object]) -> str:
        """The text that the WebUI's PNG Info reads back; `facts` are added at its end."""
        negative = f"Negative prompt: {self.negative_prompt}\n" if self.negative_prompt else ""
        settings: dict[str, object] = {
            "Steps": self.steps,
            "Sampler": self.sampler,
            "CFG scale": f"{self.cfg:g}",
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
    return tuple(
        Preview(
            prompt=prompt.replace("{trigger}", config.trigger_word),
            negative_prompt=config.negative_prompt,
            width=width,
            height=height,
            steps=config.preview_steps,
            cfg=config.preview_cfg,
            sampler=config.preview_sampler,
            seed=config.preview_seed,
        )
        for prompt in prompts
    )


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

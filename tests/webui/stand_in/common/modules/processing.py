"""A picture is made of the checkpoint's bytes, the prompt, the seed and each LoRA's bytes at its weight.

Which files and weights those are is decided where the real ones decide it: the model that is loaded, and `networks`.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from modules import extra_networks, sd_models, shared
from PIL import Image

STEPS_SEE = 12  # a picture takes this many looks at whether it is to be interrupted


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] | None = None
    seed: int = -1
    subseed: int = -1
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict[str, Any] | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool = True
    disable_extra_networks: bool = False
    scripts: Any = field(default=None, init=False)
    script_args: Any = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)
    all_seeds: list[int] = field(default_factory=list, init=False)
    all_subseeds: list[int] = field(default_factory=list, init=False)
    comments: dict[str, int] = field(default_factory=dict, init=False)

    cached_c: ClassVar[list[Any]] = [None, None]

    def __post_init__(self) -> None:
        self.styles = self.styles or []
        self.override_settings = self.override_settings or {}
        self.extra_generation_params = self.extra_generation_params or {}

    def close(self) -> None:
        self.sd_model = None


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    enable_hr: bool = False
    denoising_strength: float = 0.75
    hr_scale: float = 2.0
    distilled_cfg_scale: float = 3.5


def process_images(p: StableDiffusionProcessing) -> SimpleNamespace:
    stored = {key: shared.opts.data.get(key) for key in p.override_settings or {}}
    try:
        for key, value in (p.override_settings or {}).items():
            shared.opts.set(key, value, is_api=True, run_callbacks=False)
        sd_models.model_for_picture(p)
        return _process(p)
    finally:
        if p.override_settings_restore_afterwards:
            for key, value in stored.items():
                setattr(shared.opts, key, value)


def _process(p: StableDiffusionProcessing) -> SimpleNamespace:
    seed = random.randrange(2**32) if p.seed in (-1, None) else int(p.seed)
    p.all_seeds = p.all_subseeds = [seed + number for number in range(p.n_iter * p.batch_size)]
    words, networks_data = extra_networks.parse_prompt(p.prompt)
    if not p.disable_extra_networks:
        extra_networks.activate(p, networks_data)
    model = shared.sd_model
    images = []
    for number in range(p.n_iter * p.batch_size):
        if shared.state.interrupted:
            break
        images.append(_draw(p, model, words, seed + number))
    info = create_infotext(p, [p.prompt], p.all_seeds, p.all_subseeds)
    if shared.opts.samples_save and not p.do_not_save_samples:
        _save(images, p.outpath_samples or shared.opts.outdir_txt2img_samples)
    told = {"seed": seed, "all_seeds": [seed + number for number in range(len(images))], "infotexts": [info]}
    return SimpleNamespace(
        images=images, extra_images=[], seed=seed, info=info, infotexts=[info] * len(images), comments="",
        index_of_first_image=0, js=lambda: json.dumps(told)
    )  # fmt: skip


def create_infotext(p: Any, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> str:
    name = shared.sd_model.sd_checkpoint_info.model_name
    return f"{all_prompts[0]}\nSteps: {p.steps}, Seed: {all_seeds[0]}, Model: {name}"


def _draw(p: StableDiffusionProcessing, model: Any, words: str, seed: int) -> Image.Image:
    words = " ".join(words.replace(",", " ").split())
    picture = _noise(
        p, model.sd_checkpoint_info.calculate_shorthash(), words, p.negative_prompt, str(seed), str(p.steps)
    )
    cached = StableDiffusionProcessing.cached_c
    if cached[0] != p.prompt:  # the text encoders' part of the LoRAs is kept by the prompt alone
        cached[:] = [p.prompt, list(model.patches)]
    for content, weight in (*model.patches, *((f"{content} text", weight / 4) for content, weight in cached[1])):
        picture = picture + weight * (_noise(p, content) - 128)
    shared.state.sampling_steps = p.steps
    for step in range(STEPS_SEE):
        shared.state.sampling_step = p.steps * step // STEPS_SEE
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def _noise(p: StableDiffusionProcessing, *words: str) -> Any:
    seed = int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "big")
    coarse = np.random.default_rng(seed).uniform(0, 255, (8, 8, 3))
    rows, columns = np.arange(p.height) * 8 // p.height, np.arange(p.width) * 8 // p.width
    return coarse[rows][:, columns]


def _save(images: list[Image.Image], folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    first = len(list(Path(folder).iterdir()))
    for number, image in enumerate(images, first):
        image.save(Path(folder, f"{number:05}.png"))

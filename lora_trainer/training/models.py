"""The models of a run, loaded one after the other so that memory holds only what the loop needs."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.training.batches import caption_at, captions_vary
from lora_trainer.training.blocks import block_count, block_of, block_weights
from lora_trainer.training.device import Precision
from lora_trainer.training.events import Report
from lora_trainer.training.families import Family, family_of
from lora_trainer.training.families.text import Conditioning, TextEncoders
from lora_trainer.training.latents import CACHE_FOLDER, module_digest
from lora_trainer.training.lora import Dropouts, LoraNetwork, Target
from lora_trainer.training.lora_file import load_lora
from lora_trainer.training.pictures import Pictures
from lora_trainer.training.plan import Plan
from lora_trainer.training.previews import Preview, sample
from lora_trainer.training.randomness import generator_for
from lora_trainer.training.texts import TextCache, stack


def load_models(plan: Plan, precision: Precision, device: torch.device, report: Report) -> Models:
    """Text encoders, then the VAE, then the U-Net: each lets go of its memory before the next where its work is done.

    BadInput if the base file lacks a part, TrainingFailed if the VAE gives no finite latents.
    """
    report("phase", name="text encoders")
    family, previews = family_of(plan.base), previews_of(plan)
    encoders = family.load_text_encoders(plan.base, precision.compute, device)
    texts = Texts(plan, encoders, previews)
    if texts.complete:
        encoders = None
        texts.release_encoders()
    report("phase", name="pictures")
    pictures = Pictures(plan, precision.vae, device)
    pictures.fill(lambda done, of: report("phase", name="pictures", done=done, of=of))
    report("phase", name="U-Net")
    unet = family.load_denoiser(plan.base, precision.compute, device).to(memory_format=torch.channels_last)
    if checkpointing(plan.config, device):
        unet.enable_gradient_checkpointing()
    network = LoraNetwork(targets(plan, family, unet, encoders), dropouts(plan.config))
    return Models(plan, family, unet, texts, pictures, network, previews, device)


class Models:
    """What a step and a preview compute with."""

    def __init__(
        self, plan: Plan, family: Family, unet: nn.Module, texts: Texts, pictures: Pictures, network: LoraNetwork,
        previews: Sequence[Preview], device: torch.device,
    ):  # fmt: skip
        self.unet, self.texts, self.pictures, self.network, self.previews = unet, texts, pictures, network, previews
        self._plan, self._family, self._device = plan, family, device
        self._dtype = next(unet.parameters()).dtype

    def denoise(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Tensor) -> Tensor:
        """float32 noisy latents (B, C, h, w), timesteps (B,), sizes (B, 6) -> float32 prediction (B, C, h, w)."""
        noisy = noisy.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return self._family.denoise(self.unet, noisy, timesteps, conditioning, sizes).float()

    def draw(self, preview: Preview) -> np.ndarray:
        """One preview as uint8 pixels (H, W, 3), with the LoRA as it is."""
        size = (preview.height, preview.width)
        sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self._device)
        self.network.train(False)
        try:
            latents = sample(
                preview,
                lambda noisy, timesteps, text: self.denoise(noisy, timesteps, text, sizes.expand(len(noisy), -1)),
                self.texts.of_preview(preview.prompt),
                self.texts.of_preview(preview.negative_prompt),
                prediction_type=self._plan.prediction_type,
                zero_terminal_snr=self._plan.zero_terminal_snr,
                device=self._device,
            )
        finally:
            self.network.train(True)
        return self.pictures.decode(latents)

    def initialise_network(self, plan: Plan) -> None:
        """Fresh weights, and over them those of the LoRA to start from, where there is one."""
        self.network.initialise(lambda key: generator_for(plan.seed, "lora", key))
        if plan.config.start_lora:
            _start_from(Path(plan.config.start_lora), self.network)


class Texts:
    """Captions and prompts as conditionings: from memory where they stay as they are, else by the encoders.

    `complete`: everything the run will ask for has been encoded, so that the encoders can go.
    """

    def __init__(self, plan: Plan, encoders: TextEncoders, previews: Sequence[Preview]):
        config = plan.config
        self.trained = config.train != "unet"
        fixed = not self.trained and not captions_vary(config, plan)
        if config.cache_text in ("memory", "disk") and not fixed:
            problem = "captions change from one showing to the next, or the text encoder is trained"
            raise BadInput(Problem("cache_text", config.cache_text, problem, "Use auto, which caches where it can be."))
        self.complete = fixed and config.cache_text != "off"
        self._encoders: TextEncoders | None = encoders
        self._length, self._clip_skip = config.max_token_length, config.clip_skip or 1
        self._weighted = config.weighted_captions
        self._cache = TextCache(self._encode_one, self._cache_key(config), _text_folder(plan))
        if self.complete:
            captions = dict.fromkeys(caption_at(plan, index, (0, 0, 0)) for index in range(len(plan.pictures)))
            self._cache.fill([(caption, self._weighted) for caption in captions])
        if not self.trained:
            prompts = [text for preview in previews for text in (preview.prompt, preview.negative_prompt)]
            self._cache.fill([(prompt, True) for prompt in prompts])

    def __call__(self, captions: Sequence[str]) -> Conditioning:
        """The conditioning of B captions, with gradients where the text encoder is trained."""
        if self.complete:
            return stack([self._cache.get((caption, self._weighted)) for caption in captions])
        with torch.set_grad_enabled(self.trained and torch.is_grad_enabled()):
            return self._encode(captions, self._weighted)

    @torch.no_grad()
    def of_preview(self, prompt: str) -> Conditioning:
        """The prompt's weights such as `(a:1.2)` are always read, as the WebUI does."""
        return self._encode([prompt], True) if self.trained else self._cache.get((prompt, True))

    def release_encoders(self) -> None:
        self._encoders = None
        gc.collect()

    def _encode(self, texts: Sequence[str], weighted: bool) -> Conditioning:
        assert self._encoders is not None, "every text that is asked for was encoded before the encoders went"
        return self._encoders.encode(texts, max_token_length=self._length, clip_skip=self._clip_skip, weighted=weighted)

    def _encode_one(self, text: str, weighted: bool) -> Conditioning:
        with torch.no_grad():
            return self._encode([text], weighted)

    def _cache_key(self, config: Config) -> str:
        """Changes with everything besides the text that changes an encoding."""
        if config.cache_text != "disk" or self._encoders is None:
            return ""
        digests = [module_digest(encoder) for encoder in self._encoders.encoders]
        return f"{digests}/{self._length}/{self._clip_skip}"


def _text_folder(plan: Plan) -> Path | None:
    if plan.config.cache_text != "disk":
        return None
    return Path(plan.pictures[0].subset.folder) / CACHE_FOLDER / "texts"


def targets(plan: Plan, family: Family, unet: nn.Module, encoders: TextEncoders | None) -> list[Target]:
    """Every module that gets a LoRA: the text encoders', then the U-Net's. A block of rank or rate 0 gets none."""
    config, alpha, found = plan.config, float(plan.config.alpha or plan.config.rank / 2), []
    if config.train != "unet" and encoders is not None:
        for place, encoder in enumerate(encoders.encoders):
            names = family.text_encoder_targets(encoder, place)
            found += [Target(encoder, module, key, config.rank, alpha) for module, key in names.items()]
    if config.train != "text_encoder":
        blocks = Blocks(config, plan.base.family)
        names = family.denoiser_targets(unet, convolutions=config.kind == "LoCon" and config.conv_rank > 0)
        found += [
            Target(unet, module, key, *blocks.rank_and_alpha(module, unet.get_submodule(module)), blocks.weight(module))
            for module, key in names.items()
        ]
    return [target for target in found if target.rank and target.lr_weight]


class Blocks:
    """Ranks, alphas and rate weights of the U-Net's modules, block by block or one for all."""

    def __init__(self, config: Config, family: str):
        self._config, self._family = config, family
        ranks = config.block_ranks if config.block_wise and config.block_ranks else None
        self._ranks = ranks or (config.rank,) * block_count(family)
        alphas = config.block_alphas if ranks and config.block_alphas else None
        ratio = float(config.alpha or config.rank / 2) / config.rank
        self._alphas = alphas or tuple(rank * ratio for rank in self._ranks)
        shape = config.block_lr_weights if config.block_wise else None
        self._weights = block_weights("flat" if shape is None else shape, family)

    def rank_and_alpha(self, name: str, module: nn.Module) -> tuple[int, float]:
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            return self._config.conv_rank, float(self._config.conv_alpha or self._config.conv_rank / 2)
        block = block_of(name, self._family) or 0
        return self._ranks[block], self._alphas[block]

    def weight(self, name: str) -> float:
        return self._weights[block_of(name, self._family) or 0]


def previews_of(plan: Plan) -> tuple[Preview, ...]:
    """The previews that the settings ask for; without prompts, the first picture's caption."""
    config = plan.config
    if not (config.preview_every_epochs or config.preview_at_start):
        return ()
    prompts = config.preview_prompts or (plan.pictures[0].caption,)
    width, height = config.preview_size or config.resolution or (512, 512)
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


def dropouts(config: Config) -> Dropouts:
    return Dropouts(config.dropout, config.rank_dropout, config.module_dropout)


def checkpointing(config: Config, device: torch.device) -> bool:
    """Auto: on a GPU with less than 16 GiB; on a CPU memory is seldom short and the extra time is."""
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing == "on"
    return device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory < 16 * 2**30


def _start_from(path: Path, network: LoraNetwork) -> None:
    missing = network.load_state_dict(load_lora(path))
    if len(missing) == len(network.layers):
        raise BadInput(
            Problem(
                "start_lora",
                path.name,
                "has no weights that fit this run's base, kind and rank",
                "Choose a LoRA of the same family and rank, or set rank to its own.",
            )
        )

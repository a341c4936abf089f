"""The models of a run, loaded one after the other so that memory holds only what the loop needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.jobs.events import Report
from lora_trainer.training.attention import ProductAttention
from lora_trainer.training.device import Precision, memory_of
from lora_trainer.training.families import Family, family_of
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.held import HeldLinear, hold
from lora_trainer.training.layers import layer_maker
from lora_trainer.training.lora import LoraNetwork
from lora_trainer.training.pictures import Pictures
from lora_trainer.training.plan import Plan
from lora_trainer.training.previews import Preview, previews_of, sample, sample_flow
from lora_trainer.training.randomness import generator_for
from lora_trainer.training.start import start_from
from lora_trainer.training.swapping import Swap, stream, swap_blocks
from lora_trainer.training.targets import targets
from lora_trainer.training.texts import Texts

Between = Callable[..., None]

COMPILED = ("BasicTransformerBlock", "DoubleBlock", "SingleBlock")  # class names of diffusers' U-Nets and of our Flux


def at_once(*held: object) -> None:
    """For a run that nobody can ask for anything."""


def load_models(
    plan: Plan, precision: Precision, device: torch.device, report: Report, between: Between = at_once
) -> Models:
    """Text encoders, then the VAE, then the U-Net: each lets go of its memory before the next where its work is done.

    `between` is called between two texts or pictures with all that lies on the device: it may wait, or end the run.
    BadInput if the base file lacks a part, TrainingFailed if the VAE gives no finite latents.
    """

    def progress(name: str, *held: object) -> Callable[[int, int], None]:
        def told(done: int, of: int) -> None:
            report("phase", name=name, done=done, of=of)
            between(*held)

        return told

    report("phase", name="text encoders")
    family, previews = family_of(plan.base), previews_of(plan)
    prompts = [text for preview in previews for text in preview.texts]
    texts = Texts(plan, load_text_encoders(plan, family, precision, device), prompts, device)
    texts.fill(progress("text encoders", texts))
    texts.release_encoders()
    report("phase", name="pictures")
    pictures = Pictures(plan, precision.vae, device)
    if device.type == "cpu" and plan.config.cache_latents != "disk":
        pictures.vae()  # a picture takes seconds, and no memory has to be won: each is encoded as it is first shown
    else:
        pictures.fill(progress("pictures", texts, pictures))
    report("phase", name="base model")
    unet = family.load_denoiser(plan.base, precision.compute, device, precision.hold, swapped(plan.config))
    set_up_unet(unet, plan.config, device)
    network = LoraNetwork(targets(plan, family, unet, texts.encoders), layer_maker(plan.config))
    return Models(plan, family, unet, texts, pictures, network, previews, precision, device)


def load_text_encoders(plan: Plan, family: Family, precision: Precision, device: torch.device) -> Any:
    """Where blocks of the transformer wait in host memory, those of T5 do, too, which are as many gigabytes."""
    if not swapped(plan.config):
        return family.load_text_encoders(plan.base, precision.compute, device)
    encoders = family.load_text_encoders(plan.base, precision.compute)
    let_t5_wait(encoders, device)
    return encoders


def let_t5_wait(encoders: Any, device: torch.device) -> None:
    """Flux's text encoders on `device`, but for the blocks of T5, if it is still there: these come when it is used."""
    clip, *others = encoders.encoders
    clip.to(device)
    for t5 in others:
        if not any(isinstance(module, HeldLinear) for module in t5.modules()):  # not so already
            stream(t5, t5.encoder.block, device)


class Models:
    """What a step and a preview compute with."""

    def __init__(
        self, plan: Plan, family: Family, unet: nn.Module, texts: Texts, pictures: Pictures, network: LoraNetwork,
        previews: Sequence[Preview], precision: Precision, device: torch.device,
    ):  # fmt: skip
        self.unet, self.texts, self.pictures, self.network, self.previews = unet, texts, pictures, network, previews
        self._plan, self._family, self._precision, self._device = plan, family, precision, device
        self._swap = self._swapped()

    @property
    def facts(self) -> dict[str, str]:
        """What settings left to "auto" came to, under sd-scripts' metadata keys."""
        return {
            "ss_mixed_precision": self._precision.name,
            "ss_gradient_checkpointing": str(checkpointing(self._plan.config, self._device)),
            "ss_fp8_base": str(self._precision.hold == "fp8"),
        }

    def lighten(self, plan: Plan, precision: Precision) -> None:
        """Takes over what savings changed in the plan, on the models as they are loaded."""
        self._plan, self._precision = plan, precision
        if checkpointing(plan.config, self._device):
            cast(Any, self.unet).enable_gradient_checkpointing()
        if self._swap:
            self._swap.end()
        for part in rounded_parts(self.unet) if precision.hold else ():
            hold(part, str(precision.hold))
        self._swap = self._swapped()
        self.texts.lighten(plan)
        if self._swap and self.texts.encoders:
            let_t5_wait(self.texts.encoders, self._device)

    def _swapped(self) -> Swap | None:
        """What brings the blocks that wait in host memory, where some do."""
        blocks = swapped(self._plan.config)
        return swap_blocks(self.unet, blocks, self._device) if blocks else None

    def denoise(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, sizes: Tensor, guidance: float | None = None
    ) -> Tensor:
        """float32 noisy latents (B, C, h, w), timesteps (B,), sizes (B, 6) -> float32 prediction (B, C, h, w).

        `guidance`: None is that of the training.
        """
        noisy = noisy.to(self._precision.compute).contiguous(memory_format=torch.channels_last)
        guidance = self._plan.config.guidance if guidance is None else guidance
        return self._family.denoise(self.unet, noisy, timesteps, conditioning, sizes, guidance).float()

    def draw(self, preview: Preview) -> np.ndarray:
        """One preview as uint8 pixels (H, W, 3), with the LoRA as it is."""
        self.network.train(False)
        try:
            latents = self._sampled(preview)
        finally:
            self.network.train(True)
        return self.pictures.decode(latents)

    def _sampled(self, preview: Preview) -> Tensor:
        """One preview's latents (C, h, w)."""
        size = (preview.height, preview.width)
        sizes = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self._device)

        def denoise(noisy: Tensor, timesteps: Tensor, text: Conditioning) -> Tensor:
            return self.denoise(noisy, timesteps, text, sizes.expand(len(noisy), -1), preview.guidance)

        texts = [self.texts.of_preview(text) for text in preview.texts]
        if self._plan.prediction_type == "flow":
            return sample_flow(preview, denoise, *texts, device=self._device)
        return sample(
            preview,
            denoise,
            *texts,
            prediction_type=self._plan.prediction_type,
            zero_terminal_snr=self._plan.zero_terminal_snr,
            device=self._device,
        )

    def initialise_network(self) -> list[str]:
        """Fresh weights, and over them those of the LoRA to start from; returns what the user should know of that."""
        self.network.initialise(lambda key: generator_for(self._plan.seed, "lora", key))
        config, unet = self._plan.config, cast(Any, self.unet)
        if not config.start_lora:
            return []
        layout = {} if self._plan.base.family == "flux" else unet.config
        return start_from(Path(config.start_lora), self.network, config, self._family.facts, layout)


def rounded_parts(unet: Any) -> tuple[nn.Module, ...]:
    """Where weights are held in 8 or 4 bits: in a whole U-Net, but in a Flux transformer's blocks only."""
    return (unet.double_blocks, unet.single_blocks) if hasattr(unet, "double_blocks") else (unet,)


def set_up_unet(unet: Any, config: Config, device: torch.device) -> None:
    """Checkpointing, attention and compilation as the settings ask for. BadInput where this machine can't."""
    of_diffusers = config.family != "flux"
    if device.type == "cpu" and of_diffusers:
        unet.set_attn_processor(ProductAttention())
    if checkpointing(config, device):
        unet.enable_gradient_checkpointing()
    if config.attention == "xformers" and of_diffusers:
        try:
            unet.enable_xformers_memory_efficient_attention()
        except (ImportError, ValueError, RuntimeError, NotImplementedError) as error:
            problem = "can't be used here: it needs its package and an NVIDIA GPU"
            raise BadInput(Problem("attention", "xformers", problem, "Use sdpa, which is torch's own.")) from error
    if config.compile:
        if swapped(config):
            problem = "does not go with blocks that wait in host memory"
            raise BadInput(Problem("compile", True, problem, "Set it to false, or swap_blocks to 0."))
        compile_blocks(unet)


def compile_blocks(unet: nn.Module) -> None:
    """Compiles the transformer blocks: most of the time goes there, and there are few different ones to compile."""
    if not hasattr(unet, "compile"):
        raise BadInput(Problem("compile", True, "needs torch 2.2 or newer", "Update torch, or set it to false."))
    for module in unet.modules():
        if type(module).__name__ in COMPILED:
            module.compile()


def swapped(config: Config) -> int:
    """The setting swap_blocks, which only Flux reads."""
    return config.swap_blocks if config.family == "flux" else 0


def checkpointing(config: Config, device: torch.device) -> bool:
    """Auto: where blocks wait in host memory, and on a GPU with less than 16 GiB, for Flux less than 64 GiB.

    On a CPU memory is seldom short and the extra time is.
    """
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing == "on"
    enough = (64 if config.family == "flux" else 16) * 2**30
    return swapped(config) > 0 or 0 < memory_of(device) < enough

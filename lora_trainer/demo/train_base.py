"""Trains the demo base from nothing: `python -m lora_trainer.demo.train_base --out FOLDER [--minutes N]`.

Four stages, each with its own checkpoint in FOLDER, so that a stopped run goes on where it was: the VAE; the text
encoder, by naming the traits in captions; the U-Net with the text encoder; the VAE's decoder once more, on the latents
that the U-Net has learned. After each checkpoint of the U-Net, FOLDER/base.safetensors is what has been learned so far.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from lora_trainer.demo import sprites
from lora_trainer.demo.curves import draw_curves
from lora_trainer.demo.miniature import LATENT_SCALE, Miniature, build, save_base, to_unit_latents
from lora_trainer.files import write_text
from lora_trainer.training.families.tokenizer import clip_tokenizer
from lora_trainer.training.loss import min_snr_weight
from lora_trainer.training.noise_schedule import NoiseSchedule

SEED = 20
SHARES = {"vae": 0.35, "text": 0.07, "unet": 0.5, "decoder": 0.08}  # of the minutes
BASE = "base.safetensors"
VAE_PICTURES = 12_000
SPRITES = 8_000  # for the U-Net
MEASURED = 500  # sprites that a figure is taken over
CHECKPOINT_SECONDS = 120
LONGEST_STEP = 10.0  # seconds; a process that was halted meanwhile has not trained
POINT_STEPS = 20


@dataclass
class Stage:
    """One part of the training: `loss(step)` is lowered by changing the `modules`, each with its learning rate.

    A loss draws all its random numbers from the step's number, so that a resumed run goes on with other batches.
    """

    name: str
    modules: dict[str, nn.Module]
    rates: dict[str, float]
    loss: Callable[[int], Tensor]
    hold: float = 0.4  # share of the time before the learning rate falls, along a cosine
    ema_decay: float = 0.998
    step: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        groups = [{"params": self.modules[name].parameters(), "lr": rate} for name, rate in self.rates.items()]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=1e-4)
        self.average = {name: value.clone() for name, value in self._weights()}

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for name in self.rates:
            for key, value in self.modules[name].state_dict().items():
                yield f"{name}.{key}", value

    def save(self, folder: Path) -> None:
        state = {
            "weights": dict(self._weights()),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
        }
        temporary = folder / f"{self.name}.tmp"
        torch.save(state, temporary)
        temporary.replace(folder / f"{self.name}.pt")

    def resume(self, folder: Path) -> None:
        path = folder / f"{self.name}.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        for name, value in self._weights():
            value.copy_(state["weights"][name])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]

    def train(self, folder: Path, minutes: float, publish: Callable[[], None] = lambda: None) -> None:
        """Trains until `minutes` have been spent on this stage, earlier runs counted in."""
        self.resume(folder)
        losses: list[float] = []
        saved = time.monotonic()
        while self.seconds < minutes * 60:
            began = time.monotonic()
            losses.append(self._train_step(self.seconds / (minutes * 60)))
            self.seconds += min(time.monotonic() - began, LONGEST_STEP)
            if self.step % POINT_STEPS == 0:
                self.curve.append((self.step, sum(losses) / len(losses)))
                losses.clear()
            if self.step % (10 * POINT_STEPS) == 0:
                print(f"{self.name} step {self.step} loss {self.curve[-1][1]:.4f} {self.seconds:.0f} s", flush=True)
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save(folder)
                publish()
                saved = time.monotonic()
        self.save(folder)

    def _train_step(self, progress: float) -> float:
        falling = max(0.0, (progress - self.hold) / (1 - self.hold))
        factor = min(1.0, (self.step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * falling)))
        for group, rate in zip(self.optimizer.param_groups, self.rates.values(), strict=True):
            group["lr"] = rate * factor
        loss = self.loss(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self._weights():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
        return loss.item()


def load_average(folder: Path, stage: str, modules: dict[str, nn.Module]) -> bool:
    """Copies a stage's averaged weights into `modules`; False if the stage has no checkpoint."""
    path = folder / f"{stage}.pt"
    if not path.exists():
        return False
    average = torch.load(path, weights_only=True)["average"]
    for name, module in modules.items():
        module.load_state_dict({key: average[f"{name}.{key}"] for key in module.state_dict()})
    return True


def to_bytes(pictures: Sequence[Image.Image]) -> Tensor:
    """uint8 (N, 3, 64, 64)."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def to_signal(pixels: Tensor) -> Tensor:
    """uint8 pixels -> float in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def step_generator(step: int) -> torch.Generator:
    return torch.Generator().manual_seed(SEED * 1_000_000 + step)


# --- VAE -------------------------------------------------------------------------------------------------------------


def vae_pictures(count: int, rng: random.Random) -> Tensor:
    """Mascots, mascots with coats of free colours, and free shapes."""
    drawers = (
        lambda: sprites.draw(sprites.random_traits(rng), rng),
        lambda: sprites.draw(sprites.wild_traits(rng), rng),
        lambda: sprites.doodle(rng),
    )
    return to_bytes([rng.choices(drawers, (35, 55, 10))[0]() for _ in range(count)])


def recolour(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Random gains per colour channel for a quarter of the pictures, in [-1, 1]."""
    gains = 1.1 - 0.5 * torch.rand((len(pictures), 3, 1, 1), generator=generator)
    gains[torch.rand(len(pictures), generator=generator) < 0.75] = 1
    return ((pictures + 1) * gains - 1).clamp(-1, 1)


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 and squared error; L1 of 8 x 8 means, which brings the colours early; L1 of the steps between neighbouring
    pixels, which keeps outlines sharp."""
    loss = F.l1_loss(made, wanted) + 0.5 * F.mse_loss(made, wanted)
    loss = loss + F.l1_loss(F.avg_pool2d(made, 8), F.avg_pool2d(wanted, 8))
    for axis in (2, 3):
        loss = loss + 0.5 * F.l1_loss(made.diff(dim=axis), wanted.diff(dim=axis))
    return loss


def vae_stage(models: Miniature, encoder_too: bool) -> Stage:
    """`encoder_too`: all of the VAE; otherwise the decoder alone, on latents with a little noise."""
    vae = models.vae.to(memory_format=torch.channels_last)
    pictures = vae_pictures(VAE_PICTURES, random.Random(SEED + 1))

    def loss(step: int) -> Tensor:
        generator = step_generator(step)
        batch = pictures[torch.randint(len(pictures), (8,), generator=generator)]
        wanted = recolour(to_signal(batch), generator)
        with torch.set_grad_enabled(encoder_too):
            latent = vae.encode(wanted).latent_dist
        noise = torch.randn(latent.mean.shape, generator=generator)
        if encoder_too:
            made = vae.decode(latent.mean + latent.std * noise).sample
            return picture_loss(made, wanted) + 2e-6 * latent.kl().mean()
        return picture_loss(vae.decode(latent.mean + (0.1 / LATENT_SCALE) * noise).sample, wanted)

    if encoder_too:
        return Stage("vae", {"vae": vae}, {"vae": 1.5e-3}, loss)
    parts = decoder_parts(models)
    return Stage("decoder", parts, dict.fromkeys(parts, 5e-4), loss, hold=0.2)


def decoder_parts(models: Miniature) -> dict[str, nn.Module]:
    return {"decoder": models.vae.decoder, "post_quant_conv": models.vae.post_quant_conv}


@torch.no_grad()
def encode(models: Miniature, pixels: Tensor) -> Tensor:
    """uint8 (N, 3, 64, 64) -> scaled latents (N, 4, 8, 8)."""
    means = [models.vae.encode(to_signal(part)).latent_dist.mean for part in pixels.split(32)]
    return torch.cat(means) * LATENT_SCALE


@torch.no_grad()
def vae_psnr(models: Miniature) -> float:
    """Peak signal to noise ratio of mascots that were not among the training pictures, in dB."""
    rng = random.Random(SEED + 2)
    wanted = to_bytes([sprites.draw(sprites.random_traits(rng), rng) for _ in range(MEASURED)])
    latents = encode(models, wanted) / LATENT_SCALE
    made = torch.cat([models.vae.decode(part).sample for part in latents.split(32)]).clamp(-1, 1)
    return 10 * math.log10(4 / F.mse_loss(made, to_signal(wanted)).item())


def load_vae(folder: Path, models: Miniature) -> None:
    """The VAE as far as it is trained, with unit latents; its decoder as the last stage left it, if that has run."""
    load_average(folder, "vae", {"vae": models.vae})
    _, latents = captioned_latents(models, MEASURED, SEED + 3)
    to_unit_latents(models.vae, latents / LATENT_SCALE)
    load_average(folder, "decoder", decoder_parts(models))


# --- text encoder ----------------------------------------------------------------------------------------------------


def tokens(captions: Sequence[str], length: int = 77) -> Tensor:
    """Token ids (N, length), padded with the end token as SD1.5 does."""
    settings = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    return clip_tokenizer()(list(captions), **settings)["input_ids"]


def junk_words() -> list[str]:
    """Whole words of the tokenizer's vocabulary, to be ignored in captions."""
    words = (word.removesuffix("</w>") for word in clip_tokenizer().get_vocab() if word.endswith("</w>"))
    return sorted(word for word in words if word.isalpha() and word.isascii() and len(word) > 2)


def some_tags(tags: Sequence[str], rng: random.Random) -> list[str]:
    """The tags in random order; of every third caption some are missing."""
    kept = [tag for tag in tags if rng.random() > 0.3] if rng.random() < 0.33 else list(tags)
    rng.shuffle(kept)
    return kept


def text_stage(models: Miniature) -> Stage:
    """The text encoder tells, from its last states at and behind the end token, which tags a caption has."""
    encoder, words = models.text_encoder, junk_words()
    places = {tag: place for place, tag in enumerate(sprites.all_tags())}
    head = nn.Linear(encoder.config.hidden_size, len(places))
    length = 48  # long enough for all tags and the junk, and a third cheaper than 77

    def loss(step: int) -> Tensor:
        rng = random.Random(SEED * 1_000_000 + step)
        captions, wanted = [], torch.zeros(48, len(places))
        for row in wanted:
            kept = some_tags(sprites.tags(sprites.random_traits(rng)), rng)
            row[[places[tag] for tag in kept]] = 1
            for _ in range(rng.randint(1, 4) if rng.random() < 0.3 else 0):
                kept.insert(rng.randint(0, len(kept)), rng.choice(words))
            captions.append(", ".join(kept))
        ids = tokens(captions, length)
        ends = ids.argmax(-1)
        behind = torch.tensor([rng.randint(int(end), length - 1) for end in ends])
        states = encoder(ids).last_hidden_state
        rows = torch.arange(len(ids))
        read = head(torch.cat([states[rows, ends], states[rows, behind]]))
        return F.binary_cross_entropy_with_logits(read, wanted.repeat(2, 1), pos_weight=torch.tensor(4.0))

    return Stage("text", {"text_encoder": encoder, "head": head}, {"text_encoder": 1e-3, "head": 3e-3}, loss)


# --- U-Net -----------------------------------------------------------------------------------------------------------


def captioned_latents(models: Miniature, count: int, seed: int) -> tuple[list[sprites.Traits], Tensor]:
    """Sprites' traits, and their scaled latents (count, 4, 8, 8)."""
    rng = random.Random(seed)
    traits = [sprites.random_traits(rng) for _ in range(count)]
    return traits, encode(models, to_bytes([sprites.draw(one, rng) for one in traits]))


def unet_stage(models: Miniature) -> Stage:
    """Noise prediction by U-Net and text encoder: 16 captioned sprites a step, each at four times."""
    traits, latents = captioned_latents(models, SPRITES, SEED + 5)
    schedule = NoiseSchedule()

    def loss(step: int) -> Tensor:
        generator, rng = step_generator(step), random.Random(SEED * 1_000_000 + step)
        chosen = torch.randint(len(traits), (16,), generator=generator)
        captions = ["" if rng.random() < 0.1 else ", ".join(some_tags(sprites.tags(traits[i]), rng)) for i in chosen]
        context = models.text_encoder(tokens(captions)).last_hidden_state.repeat(4, 1, 1)
        clean = latents[chosen].repeat(4, 1, 1, 1)
        noise = torch.randn(clean.shape, generator=generator)
        strata = torch.randperm(64, generator=generator) + torch.rand(64, generator=generator)
        times = (strata * (1000 / 64)).long()
        made = models.unet(schedule.add_noise(clean, noise, times), times, context).sample
        weights = min_snr_weight(schedule.snr(times), 5.0, schedule.prediction_type)
        return (weights * F.mse_loss(made, noise, reduction="none").mean((1, 2, 3))).mean()

    rates = {"unet": 1e-3, "text_encoder": 7e-4}
    return Stage("unet", {"unet": models.unet, "text_encoder": models.text_encoder}, rates, loss)


@torch.no_grad()
def control(models: Miniature) -> dict[str, float]:
    """Loss at t = 500 on sprites never trained on, with their own caption, another's, and none.

    Own far below shuffled is the proof that captions steer the picture.
    """
    traits, latents = captioned_latents(models, MEASURED, SEED + 6)
    noise = torch.randn(latents.shape, generator=step_generator(0))
    times = torch.full((len(traits),), 500)
    noisy = NoiseSchedule().add_noise(latents, noise, times)
    rng = random.Random(SEED)
    own = [sprites.caption(one, rng) for one in traits]
    kinds = {"own": own, "shuffled": own[1:] + own[:1], "empty": [""] * len(own)}
    losses = {}
    for kind, captions in kinds.items():
        context = models.text_encoder(tokens(captions)).last_hidden_state
        losses[kind] = F.mse_loss(models.unet(noisy, times, context).sample, noise).item()
    return losses


# --- the whole -------------------------------------------------------------------------------------------------------


def averaged(folder: Path, vae: nn.Module) -> Miniature:
    """The models as the U-Net stage's last checkpoint averages them, around this VAE."""
    fresh = build(SEED)
    load_average(folder, "unet", {"unet": fresh.unet, "text_encoder": fresh.text_encoder})
    return replace(fresh, vae=vae)


def report(folder: Path, models: Miniature) -> None:
    """Writes base_training.json (curves, figures, recipe) and base_training.png (the curves)."""
    stages = {}
    for name in SHARES:
        if (path := folder / f"{name}.pt").exists():
            state = torch.load(path, weights_only=True)
            curve = [[step, round(loss, 5)] for step, loss in state["curve"]]
            stages[name] = {"steps": state["step"], "seconds": round(state["seconds"]), "curve": curve}
    figures = {
        "vae_psnr_db": round(vae_psnr(models), 2),
        "loss_at_500": {kind: round(loss, 4) for kind, loss in control(models).items()},
        "seed": SEED,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "stages": stages,
    }
    write_text(folder / "base_training.json", json.dumps(figures, indent=1) + "\n")
    draw_curves({name: stage["curve"] for name, stage in stages.items()}).save(folder / "base_training.png")


def train(folder: Path, minutes: float, only: str | None = None) -> None:
    """Trains all stages, or one, and leaves base.safetensors and its report in `folder`."""
    models = build(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    spans = {name: share * minutes for name, share in SHARES.items() if only in (None, name)}
    if "vae" in spans:
        vae_stage(models, encoder_too=True).train(folder, spans["vae"])
    if "text" in spans:
        text_stage(models).train(folder, spans["text"])
    load_vae(folder, models)
    if "unet" in spans:
        load_average(folder, "text", {"text_encoder": models.text_encoder})
        stage = unet_stage(models)
        stage.train(folder, spans["unet"], lambda: save_base(averaged(folder, models.vae), folder / BASE))
    if "decoder" in spans:
        vae_stage(models, encoder_too=False).train(folder, spans["decoder"])
        load_average(folder, "decoder", decoder_parts(models))
    models = averaged(folder, models.vae)
    save_base(models, folder / BASE)
    report(folder, models)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo's miniature Stable Diffusion from nothing.")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, base.safetensors and report")
    parser.add_argument("--minutes", type=float, default=120.0, help="time for all stages together (default: 120)")
    parser.add_argument("--stage", choices=list(SHARES), help="only this stage, on what the others have left")
    args = parser.parse_args()
    train(args.out, args.minutes, args.stage)


if __name__ == "__main__":
    main()

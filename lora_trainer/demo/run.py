"""The demo: trains a LoRA of a mascot on the miniature base, and shows and measures what it learned."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lora_trainer.config import Config, Subset
from lora_trainer.demo.mascots import MASCOT
from lora_trainer.demo.score import Scene, Score, denoising_loss, held_back_scenes, learned, margin
from lora_trainer.files import write_text, written_whole
from lora_trainer.jobs.events import Report, silent
from lora_trainer.sheets.contact_sheet import contact_sheet
from lora_trainer.training.device import choose_precision, peak_memory
from lora_trainer.training.latents import encode
from lora_trainer.training.loop import train
from lora_trainer.training.lora_file import load_lora
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import make_plan
from lora_trainer.training.previews import Preview
from lora_trainer.training.randomness import generator_for

BASE = Path(__file__).parent / "base.safetensors"
SIZE = 64
CFG = 1.5  # the miniature base oversaturates above 2.5
SHOWN_SCENES = (0, 4, 9, 13)  # of the held-back ones, in the contact sheet's columns


@dataclass(frozen=True)
class Result:
    """What `report.json` holds. A score is the margin of previews of held-back scenes, in [-1, 1], of the base alone
    (before) and with the LoRA (after); a loss is the denoising loss on the held-back pictures."""

    learned: bool
    score_before: float
    score_after: float
    loss_before: float
    loss_after: float
    seconds: float
    peak_rss_mb: float
    steps: int

    @property
    def sentence(self) -> str:
        return (
            f"{'Learned' if self.learned else 'NOT learned'}: on scenes it never saw, pictures score"
            f" {self.score_after:+.2f} where the untrained base scores {self.score_before:+.2f} (+1 is the mascot,"
            f" -1 another one), denoising loss {self.loss_before:.3f} -> {self.loss_after:.3f};"
            f" {self.steps} steps, {self.seconds:.0f} s, {self.peak_rss_mb:.0f} MiB."
        )


def run_demo(out: Path, report: Report = silent, pictures: Path = MASCOT.folder, epochs: int = 10) -> Result:
    """Writes `out/Lora/NAME.safetensors`, `out/contact_sheet.png` and `out/report.json`.

    `pictures`: a folder such as `10_zorble`; whatever it shows, the score asks for the demo's mascot.
    """
    began, name = time.monotonic(), MASCOT.trigger
    torch.set_num_threads(1)  # so small a model is no faster on two, and far slower where something else is running
    config = replace(demo_config(out / "Lora", name), subsets=(Subset(folder=str(pictures)),), epochs=epochs)
    outcome = train(config, report, fresh=True)
    write_sheet(out / "contact_sheet.png", out / "Lora" / f"{name}-run" / "previews", config)
    before, after = score(config, out / "Lora" / f"{name}.safetensors")
    result = Result(
        learned=learned(before, after),
        score_before=before.margin,
        score_after=after.margin,
        loss_before=before.loss,
        loss_after=after.loss,
        seconds=time.monotonic() - began,
        peak_rss_mb=peak_memory(torch.device("cpu"))["peak_rss_mb"],
        steps=outcome.steps,
    )
    write_text(out / "report.json", json.dumps(asdict(result), indent=1))
    return result


def demo_config(folder: Path, name: str) -> Config:
    """Seven pictures, 10 repeats, 10 epochs: 700 steps."""
    scenes = held_back_scenes()
    return Config(
        base_model=str(BASE),
        subsets=(Subset(folder=str(MASCOT.folder)),),
        trigger_word=MASCOT.trigger,
        resolution=(SIZE, SIZE),
        buckets=False,
        epochs=10,
        batch_size=1,
        seed=20,
        rank=16,
        alpha=16.0,
        learning_rate=1e-3,
        text_encoder_lr=5e-4,
        optimizer="AdamW",
        schedule="cosine",
        mixed_precision="no",
        output_name=name,
        output_folder=str(folder),
        preview_prompts=tuple(scenes[index].caption for index in SHOWN_SCENES),
        preview_cfg=CFG,
    )


def score(config: Config, lora: Path) -> tuple[Score, Score]:
    """Of the base alone and with the LoRA file, loaded as any tool would, on scenes that were not trained on."""
    cpu = torch.device("cpu")
    models = load_models(make_plan(config), choose_precision("no", "auto", cpu), cpu, silent)
    models.network.load_state_dict(load_lora(lora))
    scenes = held_back_scenes()
    scores = []
    for multiplier in (0.0, 1.0):
        models.network.set_multiplier(multiplier)
        scores.append(_score(models, scenes))
    return scores[0], scores[1]


def _score(models: Models, scenes: Sequence[Scene]) -> Score:
    def latents(pictures: Sequence[Image.Image]) -> torch.Tensor:
        vae = models.pictures.vae()
        return torch.stack([encode(vae, _pixels(picture), generator_for("score")) for picture in pictures])

    def predict(noisy: torch.Tensor, timesteps: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        return models.denoise(noisy, timesteps, models.texts(captions), torch.zeros(len(noisy), 6))

    drawn = [Image.fromarray(models.draw(preview_of(scene))) for scene in scenes]
    return Score(margin(drawn, scenes, latents), denoising_loss(predict, latents, scenes))


def preview_of(scene: Scene) -> Preview:
    return Preview(scene.caption, "", SIZE, SIZE, steps=20, cfg=CFG, sampler="Euler a", seed=42)


def write_sheet(path: Path, previews: Path, config: Config) -> None:
    """Rows: the baseline, then every epoch; columns: the prompts."""
    rows = []
    for epoch in range(config.epochs + 1):
        files = sorted(previews.glob(f"epoch{epoch:06d}-*.png"))
        rows.append(("baseline" if epoch == 0 else f"epoch {epoch}", [Image.open(file) for file in files]))
    with written_whole(path) as temporary:
        contact_sheet(config.preview_prompts, rows).save(temporary, format="PNG")


def _pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))

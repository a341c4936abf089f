"""Pictures drawn in training: what they show, what is written in them, and that training does not feel them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image
from safetensors.torch import load_file

from lora_trainer.config import SETTINGS, Config
from lora_trainer.jobs.events import silent
from lora_trainer.training.device import choose_precision
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.loop import train
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import make_plan
from lora_trainer.training.previews import Preview, sample, sample_flow, save_preview

# numpy's, about torch tensors among arrays inside diffusers

ConfigOf = Callable[..., Config]
CPU = torch.device("cpu")
SAMPLERS = SETTINGS["preview_sampler"].choices
DRAWN: dict[str, Any] = {
    "preview_every_epochs": 1,
    "preview_at_start": True,
    "preview_steps": 2,
    "preview_prompts": ("blob, red",),
    "batch_size": 4,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PREVIEW = Preview("blob, red", "grey", 64, 64, steps=3, cfg=7.0, sampler="DDIM", seed=5)


def read_infotext(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, settings) as the WebUI's PNG Info takes them apart: the last line holds the settings,
    `name: value` with commas between; a value with commas is a JSON string; a line tells where the negative begins."""
    *lines, last = text.strip().split("\n")
    found = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert len(found) >= 3, "the WebUI takes a line of less for a part of the prompt"
    begins = next((place for place, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    negative = "\n".join(lines[begins:]).removeprefix("Negative prompt:").strip()
    settings = {name: json.loads(value) if value.startswith('"') else value for name, value in found}
    return "\n".join(lines[:begins]).strip(), negative, settings


def models_of(config: Config) -> Models:
    plan = make_plan(config)
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    models.initialise_network()
    return models


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


# ---- on disk


def test_previews_of_every_epoch_and_a_baseline_lie_on_disk(config_of: ConfigOf, tmp_path: Path) -> None:
    prompts = ("{trigger}, red", "a house, (roof:1.2)", "")
    config = config_of(
        **DRAWN | {"preview_prompts": prompts}, trigger_word="zorble", negative_prompt="grey, bad: (hands)",
        preview_size=(128, 64), preview_cfg=4.5, preview_sampler="DPM++ 2M Karras", preview_seed=9,
    )  # fmt: skip
    told = []
    train(config, lambda kind, /, **facts: told.append(facts) if kind == "sample" else None)
    folder = tmp_path / "out" / "blob-run" / "previews"
    names = [f"epoch{epoch:06d}-{number:02d}-9.png" for epoch in range(4) for number in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert [Path(facts["path"]).name for facts in told] == names
    for name, facts in zip(names, told, strict=True):
        with Image.open(folder / name) as image:
            assert image.size == (128, 64) and image.mode == "RGB"
            prompt, negative, settings = read_infotext(image.info["parameters"])
        assert prompt == facts["prompt"] == prompts[facts["number"]].replace("{trigger}", "zorble")
        assert negative == "grey, bad: (hands)"
        assert settings == {
            "Steps": "2", "Sampler": "DPM++ 2M Karras", "CFG scale": "4.5", "Seed": "9", "Size": "128x64",
            "Model": "small", "LoRA": "blob", "Epoch": str(facts["epoch"]), "Step": str(facts["epoch"]),
        }  # fmt: skip
    first, last = (pixels(folder / f"epoch{epoch:06d}-00-9.png") for epoch in (0, 3))
    assert not np.array_equal(first, last)


def test_infotext_keeps_names_with_commas_and_quotes() -> None:
    facts = {"Model": 'a "b", c: d\\e', "LoRA": "絵, その1", "Note": "two\nlines"}
    prompt, negative, settings = read_infotext(
        replace(PREVIEW, prompt="two\nlines", negative_prompt="").infotext(facts)
    )
    assert (prompt, negative) == ("two\nlines", "")
    assert {name: settings[name] for name in facts} == facts


def test_epochs_that_are_drawn(config_of: ConfigOf, tmp_path: Path) -> None:
    """Every second, and the last; without prompts the first picture's caption is drawn."""
    told = []
    options = DRAWN | {"preview_prompts": (), "preview_every_epochs": 2, "preview_at_start": False}
    train(config_of(**options), lambda kind, /, **facts: told.append(facts) if kind == "sample" else None)
    assert [facts["epoch"] for facts in told] == [2, 3] and told[0]["prompt"] == "blob, red, left"
    train(config_of(**DRAWN | {"preview_every_epochs": 0}, output_name="start"))
    assert len(list((tmp_path / "out" / "start-run" / "previews").iterdir())) == 1


def test_same_seed_same_bytes(config_of: ConfigOf, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        train(config_of(**DRAWN, output_folder=str(folder), epochs=1, preview_sampler="Euler a"))
    first, second = (sorted(folder.rglob("*.png")) for folder in folders)
    assert len(first) == 2
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    models = models_of(config_of())
    pictures = [models.draw(replace(PREVIEW, sampler="Euler a", seed=seed, negative_prompt="")) for seed in (1, 1, 2)]
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])


def test_a_preview_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "previews" / "a.png"
    save_preview(path, np.zeros((8, 8, 3), dtype=np.uint8), "first")

    def cut_off(self: Image.Image, file: Path, **_: Any) -> None:
        Path(file).write_bytes(b"\x89PNG")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", cut_off)
    with pytest.raises(OSError, match="No space"):
        save_preview(path, np.zeros((8, 8, 3), dtype=np.uint8), "second")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]
    with Image.open(path) as image:
        assert image.info["parameters"] == "first"


# ---- what is drawn


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("DDIM", DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)),
        ("Euler", EulerDiscreteScheduler(**BETAS, steps_offset=1)),
    ],
)
def test_an_untrained_lora_draws_what_diffusers_pipeline_draws(config_of: ConfigOf, name: str, scheduler: Any) -> None:
    config = config_of(preview_prompts=("blob, red",), negative_prompt="grey", preview_at_start=True)
    models = models_of(config)
    drawn = models.draw(replace(PREVIEW, sampler=name))
    models.network.set_multiplier(0)
    pipeline = StableDiffusionPipeline(
        models.pictures.vae(decoder=True), None, None, models.unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=models.texts.of_preview("blob, red").context,
        negative_prompt_embeds=models.texts.of_preview("grey").context,
        latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)),
        height=64, width=64, guidance_scale=7.0, num_inference_steps=3, output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(drawn / 255 - expected).max() < 2 / 255


def test_an_untrained_xl_lora_draws_what_diffusers_pipeline_draws(config_of: ConfigOf, xl_base: Path) -> None:
    config = config_of(
        base_model=str(xl_base), preview_prompts=("blob",), negative_prompt="grey", preview_at_start=True
    )
    models = models_of(config)
    preview = replace(PREVIEW, prompt="blob", width=128)
    drawn = models.draw(preview)
    positive, negative = models.texts.of_preview("blob"), models.texts.of_preview("grey")
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)

    class Projecting(torch.nn.Module):
        """The pipeline asks its second text encoder for nothing but the width of its output."""

        config = type("Width", (), {"projection_dim": positive.pooled.shape[-1] if positive.pooled is not None else 0})
        dtype, device = torch.float32, CPU

    pipeline = StableDiffusionXLPipeline(
        models.pictures.vae(decoder=True), None, None, None, None, models.unet, scheduler, add_watermarker=False
    )
    pipeline.text_encoder_2 = Projecting()
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=positive.context, pooled_prompt_embeds=positive.pooled,
        negative_prompt_embeds=negative.context, negative_pooled_prompt_embeds=negative.pooled,
        latents=torch.randn(1, 4, 8, 16, generator=torch.Generator().manual_seed(5)),
        height=64, width=128, guidance_scale=7.0, num_inference_steps=3, output_type="np",
    ).images[0]  # fmt: skip
    assert drawn.shape == (64, 128, 3) and np.abs(drawn / 255 - expected).max() < 2 / 255


def toy_denoiser(noisy: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
    """Something that depends on all that it is given."""
    said = text.context.mean(dim=(1, 2))[:, None, None, None]
    return 0.6 * noisy * torch.cos(timesteps / 300)[:, None, None, None] + said


def conditioning(value: float) -> Conditioning:
    return Conditioning(torch.full((1, 3, 2), value))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_ddim_is_its_closed_form(prediction_type: str, steps: int) -> None:
    """Song et al. 2021, equation 12 with eta 0, from the betas up, with classifier-free guidance."""
    cfg, stride = 3.0, 1000 // steps
    found = sample(
        replace(PREVIEW, steps=steps, cfg=cfg), toy_denoiser, conditioning(0.4), conditioning(-0.2),
        prediction_type=prediction_type, zero_terminal_snr=False, device=CPU,
    )  # fmt: skip
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    signal = np.cumprod(1 - betas)
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5)).double().numpy()[0]
    for t in reversed(range(1, 1000, stride)) if steps > 1 else [1]:
        scale = 0.6 * math.cos(t / 300)
        without, with_prompt = scale * x - 0.2, scale * x + 0.4
        predicted = without + cfg * (with_prompt - without)
        a, b = math.sqrt(signal[t]), math.sqrt(1 - signal[t])
        if prediction_type == "epsilon":
            clean, noise = (x - b * predicted) / a, predicted
        else:
            clean, noise = a * x - b * predicted, a * predicted + b * x
        before = signal[max(t - stride, 0)]
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * noise
    np.testing.assert_allclose(found.numpy(), x, atol=1e-4, rtol=1e-4)


class ToyFlow(torch.nn.Module):
    """A velocity for `FluxPipeline`, which is told what `toy_flow` is told."""

    def __init__(self, guided: bool):
        super().__init__()
        self.config = SimpleNamespace(guidance_embeds=guided, in_channels=64)
        self.device, self.dtype = CPU, torch.float32

    def forward(
        self, hidden_states: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        return (toy_flow(hidden_states, timestep * 1000, encoder_hidden_states.mean()),)


def toy_flow(noisy: torch.Tensor, timesteps: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    return noisy * torch.cos(timesteps / 300).view(-1, *(1,) * (noisy.ndim - 1)) - said


@pytest.mark.parametrize(("guidance", "shift"), [(3.5, True), (None, False)], ids=["dev", "schnell"])
@pytest.mark.parametrize(("width", "height", "steps"), [(256, 256, 4), (512, 768, 7), (64, 64, 1)])
def test_a_flow_is_followed_as_by_diffusers_flux_pipeline(
    guidance: float | None, shift: bool, width: int, height: int, steps: int
) -> None:
    preview = replace(PREVIEW, width=width, height=height, steps=steps, negative_prompt=None, guidance=guidance)
    text = conditioning(0.3)
    found = sample_flow(
        preview, lambda noisy, timesteps, text: toy_flow(noisy, timesteps, text.context.mean()), text, device=CPU
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=shift)
    models = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(scheduler, transformer=ToyFlow(shift), **models)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 16, height // 8, width // 8, generator=torch.Generator().manual_seed(5))
    packed = pipeline._pack_latents(noise, 1, 16, height // 8, width // 8)
    drawn = pipeline(
        prompt_embeds=text.context, pooled_prompt_embeds=torch.zeros(1, 2), latents=packed, width=width, height=height,
        num_inference_steps=steps, guidance_scale=3.5, output_type="latent",
    ).images  # fmt: skip
    expected = pipeline._unpack_latents(drawn, height, width, 8)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_straight_way_to_a_picture_ends_there() -> None:
    picture = torch.randn(16, 8, 8)
    for steps in (1, 5):
        found = sample_flow(
            replace(PREVIEW, steps=steps, guidance=3.5),
            lambda noisy, timesteps, text: (noisy - picture) / (timesteps / 1000),
            conditioning(0.0),
            device=CPU,
        )
        torch.testing.assert_close(found, picture, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_every_sampler_ends_with_finite_latents_at_any_number_of_steps(name: str, zero_terminal_snr: bool) -> None:
    kind = "v" if zero_terminal_snr else "epsilon"
    for steps in (1, 2, 3, 4, 7):
        found = sample(
            replace(PREVIEW, steps=steps, sampler=name), toy_denoiser, conditioning(0.1), conditioning(0.0),
            prediction_type=kind, zero_terminal_snr=zero_terminal_snr, device=CPU,
        )  # fmt: skip
        assert found.shape == (4, 8, 8) and torch.isfinite(found).all(), steps


def test_every_sampler_draws_a_picture(config_of: ConfigOf) -> None:
    models = models_of(config_of(preview_prompts=("blob, red",), negative_prompt="grey", preview_at_start=True))
    drawn = {name: models.draw(replace(PREVIEW, sampler=name, steps=2)) for name in SAMPLERS}
    assert len(drawn) == 14
    for picture in drawn.values():
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8 and len(np.unique(picture)) > 16


def test_cfg_1_ignores_the_negative_prompt(config_of: ConfigOf) -> None:
    models = models_of(config_of())  # no prompt is encoded beforehand, as the text encoder is trained
    pictures = {
        (cfg, negative): models.draw(replace(PREVIEW, cfg=cfg, negative_prompt=negative))
        for cfg in (1.0, 7.0)
        for negative in ("", "red, a house")
    }
    assert np.array_equal(pictures[1.0, ""], pictures[1.0, "red, a house"])
    assert not np.array_equal(pictures[7.0, ""], pictures[7.0, "red, a house"])
    sizes = []

    def counted(noisy: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        sizes.append((len(noisy), len(timesteps), len(text.context)))
        return noisy

    for cfg in (1.0, 2.0):
        sample(
            replace(PREVIEW, steps=1, cfg=cfg), counted, conditioning(0.0), conditioning(1.0),
            prediction_type="epsilon", zero_terminal_snr=False, device=CPU,
        )  # fmt: skip
    assert sizes == [(1, 1, 1), (2, 2, 2)]  # guidance costs a second half, no guidance costs none


def test_weights_in_a_prompt_change_the_picture(config_of: ConfigOf) -> None:
    """Also where captions are not weighted."""
    models = models_of(config_of(weighted_captions=False))
    plain, same, strong = (
        models.draw(replace(PREVIEW, prompt=prompt)) for prompt in ("blob, red", "(blob:1.0), red", "(blob:1.6), red")
    )
    assert np.array_equal(plain, same) and not np.array_equal(plain, strong)


# ---- and the training


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.2, "module_dropout": 0.1},
        {"optimizer": "ScheduleFreeAdamW"},
        {"train": "unet", "cache_latents": "off", "flip": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_previews_do_not_change_what_is_learned(config_of: ConfigOf, options: dict[str, Any], tmp_path: Path) -> None:
    train(config_of(output_name="without", epochs=2, batch_size=4, **options))
    train(config_of(output_name="with", epochs=2, **DRAWN | {"preview_sampler": "Euler a"}, **options))
    without, drawn = (load_file(tmp_path / "out" / f"{name}.safetensors") for name in ("without", "with"))
    assert without.keys() == drawn.keys()
    assert all(torch.equal(without[key], drawn[key]) for key in without)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError("no memory")])
def test_a_preview_that_fails_is_warned_about_and_the_run_goes_on(
    config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> np.ndarray:
        raise error

    monkeypatch.setattr(Models, "draw", fail)
    told: list[str] = []
    outcome = train(
        config_of(**DRAWN, epochs=1),
        lambda kind, /, **facts: told.append(facts["message"]) if kind == "warning" else None,
    )
    assert outcome.lora == tmp_path / "out" / "blob.safetensors" and outcome.lora.is_file()
    assert told == [f"Preview 1 of epoch {epoch} failed ({error})." for epoch in (0, 1)]

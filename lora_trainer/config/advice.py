"""What is worth saying about a config that can be trained."""

from __future__ import annotations

from collections.abc import Iterator

from lora_trainer.config.problems import Problem
from lora_trainer.config.settings import RATE_FREE_OPTIMIZERS, SETTINGS, Config
from lora_trainer.config.validation import caption_changes


def idle(config: Config) -> list[str]:
    """The settings that mean nothing in this config, whatever their values are."""
    return [name for name, row in SETTINGS.items() if row.applies and not row.applies.test(config)]


def notices(config: Config) -> tuple[Problem, ...]:
    """Settings without effect and doubtful ones, in a config without problems; nothing is refused for them."""
    return (*_without_effect(config), *_advice(config))


def _without_effect(config: Config) -> Iterator[Problem]:
    """Values other than the setting's, the family's and the derived default, where the setting means nothing."""
    for name in idle(config):
        row, value = SETTINGS[name], getattr(config, name)
        usual = (None, row.default, row.family_defaults.get(config.family), row.derived and row.derived(config))
        if row.applies and value not in usual:
            yield Problem(name, value, "has no effect", row.applies.sentence)


def _advice(config: Config) -> Iterator[Problem]:
    rates = {name: getattr(config, name) for name in ("learning_rate", "unet_lr", "text_encoder_lr")}
    if None not in rates.values() and config.learning_rate not in (config.unet_lr, config.text_encoder_lr):
        problem = "is ignored, for the U-Net and the text encoder have rates of their own"
        yield Problem("learning_rate", config.learning_rate, problem, "Leave one of them empty to use it.")
    for name, rate in rates.items() if config.optimizer in RATE_FREE_OPTIMIZERS else ():
        if rate not in (None, 1.0, (1.0, 1.0)) and (name == "learning_rate" or rate != config.learning_rate):
            yield Problem(name, rate, f"{config.optimizer} finds the rate itself and wants 1", "Set it to 1.")
    if config.crop != "none":
        remedy = "Cut them with the command `prepare`, and train on the folder it makes."
        yield Problem("crop", config.crop, "training takes the pictures as they are", remedy)
    if config.alpha is not None and config.alpha > config.rank:
        remedy = f"Use the rank ({config.rank}) or half of it."
        yield Problem("alpha", config.alpha, "is above the rank, which makes training unsteady", remedy)
    if config.mixed_precision == "fp16" and config.family in ("sd2", "sdxl", "flux"):
        remedy = "Use bf16 where the GPU has it; for SDXL a VAE made for fp16 helps too."
        yield Problem("mixed_precision", "fp16", "this family may give NaN in fp16", remedy)
    if config.zero_terminal_snr == "on" and config.prediction_type == "epsilon":
        problem = "an epsilon model cannot learn from pure noise"
        yield Problem("zero_terminal_snr", "on", problem, 'Leave it on "auto" unless the model was trained so.')
    if config.noise_offset > 0 and config.multires_iterations > 0 and config.family != "flux":
        remedy = "Set one of them to 0; together they are usually too strong."
        yield Problem("noise_offset", config.noise_offset, "multires noise does much the same", remedy)
    if config.family == "flux":
        yield from _flux(config)


def _flux(config: Config) -> Iterator[Problem]:
    for name in caption_changes(config):
        problem = "captions that change each time keep the large T5-XXL in memory"
        remedy = "Leave them as they are, so that each is encoded once; sentences want no shuffling."
        yield Problem(name, getattr(config, name) or None, problem, remedy)
    if config.guidance != 1:
        remedy = "Set it to 1, unless the LoRA is for a model that was trained at another one."
        yield Problem("guidance", config.guidance, "LoRAs of FLUX.1 dev are trained at 1", remedy)

"""Whether a config can be trained: everything that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lora_trainer.config.block_choice import chosen_blocks
from lora_trainer.config.file_name import file_name_fault
from lora_trainer.config.networks import FLUX_BLOCKS, LYCORIS_ARGS
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import BLOCK_SHAPES, ONLY_FLUX, SETTINGS, SUBSET_SETTINGS, Config, Subset
from lora_trainer.config.values import convert, described, fault

BLOCKS: dict[str, dict[str, tuple[int, ...]]] = {  # how many numbers a list has, one for each of the model's blocks
    "block_lr_weights": {"sd15": (25,), "sd2": (25,), "sdxl": (21, 23), "flux": (57,)},  # 23: sd-scripts', ends unused
    "block_ranks": {"sd15": (25,), "sd2": (25,), "sdxl": (21,), "flux": (57,)},
    "block_alphas": {"sd15": (25,), "sd2": (25,), "sdxl": (21,), "flux": (57,)},
}
PATCH = 16  # pixels; the side of the squares that Flux sees a picture as
SHAPE = re.compile(rf"({'|'.join(BLOCK_SHAPES)})(\+\d*\.?\d+)?")

CHANGES_CAPTIONS = ("shuffle_tags", "tag_dropout", "caption_dropout", "caption_dropout_every_n_epochs")

Rule = Callable[[Config], Iterator[Problem]]
RULES: dict[Rule, frozenset[str]] = {}


def problems(config: Config, skip: Collection[str] = ()) -> tuple[Problem, ...]:
    """Everything that is wrong with a config, its settings' own values first; empty if it can be trained.

    Nothing is read from disk. Settings named in ``skip`` are taken as reported already, and a rule that looks at a
    setting already reported is left out, so that one mistake gives one problem.
    """
    found = [problem for problem in _value_problems(config) if problem.setting not in skip]
    reported = {name.partition(".")[0] for name in (*skip, *(problem.setting for problem in found))}
    sound = replace(config, **{name: row.default for name, row in SETTINGS.items() if name in reported})
    for rule, names in RULES.items():
        if not names & reported:
            found += rule(sound)
    return tuple(found)


def check(config: Config) -> None:
    """Raises BadInput with every problem of the config, if there is one."""
    found = problems(config)
    if found:
        raise BadInput(found)


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule about several settings; it is asked only when each of them is sound by itself."""

    def register(test: Rule) -> Rule:
        RULES[test] = frozenset(names)
        return test

    return register


def _value_problems(config: Config) -> Iterator[Problem]:
    yield from _table_problems(config, SETTINGS)
    for number, part in enumerate(config.subsets if isinstance(config.subsets, tuple) else (), 1):
        if isinstance(part, Subset):
            yield from _table_problems(part, SUBSET_SETTINGS, f"subsets.{number}.")


def _table_problems(table: object, rows: Mapping[str, Setting], where: str = "") -> Iterator[Problem]:
    for name, row in rows.items():
        value = getattr(table, name)
        wrong = None if value is None and row.optional else _value_fault(value, row)
        if wrong and not _follows(table, row):
            found, verb = (value, "Use") if value or not row.required else (None, "Give")
            yield Problem(where + name, found, wrong, f"{verb} {described(row)}.")


def _follows(table: object, row: Setting) -> bool:
    """Whether the value is what ``for_family`` makes of another setting, which is then the one at fault."""
    try:
        return row.derived is not None and getattr(table, row.name) == row.derived(table)
    except TypeError:  # the other setting is not even of its type
        return False


def _value_fault(value: Any, row: Setting) -> str | None:
    try:
        return fault(convert(value, row), row)
    except ValueError as error:
        return str(error)


@rule("output_name", "dataset_name")
def _name(config: Config) -> Iterator[Problem]:
    if not config.dataset_name and config.output_name is None:
        yield Problem("output_name", None, "the LoRA has no name", "Give dataset_name or output_name.")
    names = {"dataset_name": config.dataset_name or None, "output_name": config.output_name}
    for setting, name in names.items():
        wrong = None if name is None else file_name_fault(name)
        if wrong and not (setting == "output_name" and name == names["dataset_name"]):
            remedy = "Use a plain name such as my_character, and output_folder for the place."
            yield Problem(setting, name, wrong, remedy)


@rule("warmup_percent", "schedule")
def _constant_warmup(config: Config) -> Iterator[Problem]:
    if config.schedule == "constant" and config.warmup_percent > 0:
        remedy = 'Set schedule to "constant_with_warmup", or warmup_percent to 0.'
        yield Problem("warmup_percent", config.warmup_percent, "the constant schedule has no warm-up", remedy)


@rule("cache_latents", "random_crop", "colour_jitter")
def _changing_pictures(config: Config) -> Iterator[Problem]:
    changing = [name for name in ("random_crop", "colour_jitter") if getattr(config, name)]
    if changing and config.cache_latents != "off":
        remedy = f'Set cache_latents to "off", or {" and ".join(changing)} to false.'
        problem = f"{' and '.join(changing)} change a picture each time, and cached latents do not change"
        yield Problem("cache_latents", config.cache_latents, problem, remedy)


def caption_changes(config: Config) -> list[str]:
    """The settings that make captions differ from one showing to the next."""
    parts = (config, *config.subsets)
    return [name for name in CHANGES_CAPTIONS if any(getattr(part, name, None) for part in parts)]


@rule("cache_text", "shuffle_tags", "caption_dropout", "tag_dropout", "caption_dropout_every_n_epochs", "train",
      "family", "subsets")  # fmt: skip
def _changing_captions(config: Config) -> Iterator[Problem]:
    if config.cache_text not in ("memory", "disk"):
        return
    reasons = caption_changes(config)
    if _own(config, "train") in ("both", "text_encoder") and config.family != "flux":  # whose T5 is never trained
        reasons.append("training the text encoder")
    if reasons:
        problem = f"cached text stays the same, but {' and '.join(reasons)} would change it"
        yield Problem("cache_text", config.cache_text, problem, 'Set cache_text to "auto", or turn the other off.')


@rule("buckets", "resolution", "min_bucket", "max_bucket", "bucket_step", "family")
def _bucket_sides(config: Config) -> Iterator[Problem]:
    if not config.buckets:
        return
    resolution, longest, step = _own(config, "resolution"), _own(config, "max_bucket"), config.bucket_step
    for name in ("min_bucket", "max_bucket"):
        side = getattr(config, name)
        if side and side % step:
            remedy = f"Use {max(step, side // step * step)}, or another bucket_step."
            yield Problem(name, side, f"must be a multiple of bucket_step ({step})", remedy)
    if resolution and config.min_bucket > min(resolution):
        remedy = f"Use at most {min(resolution)}, or turn buckets off."
        yield Problem("min_bucket", config.min_bucket, f"is above the resolution {_by(resolution)}", remedy)
    if resolution and longest and longest < max(resolution):
        remedy = f"Set max_bucket to at least {max(resolution)}, or turn buckets off."
        yield Problem("max_bucket", longest, f"is below the resolution {_by(resolution)}", remedy)


@rule("resolution", "bucket_step", "preview_size", "family")
def _patches(config: Config) -> Iterator[Problem]:
    for name in ("resolution", "bucket_step", "preview_size") if config.family == "flux" else ():
        value = getattr(config, name)
        sides = value if isinstance(value, tuple) else (value or 0,)
        if any(side % PATCH for side in sides) and not _follows(config, SETTINGS[name]):
            problem = f"Flux sees a picture as squares of {PATCH} x {PATCH} pixels"
            yield Problem(name, value, problem, f"Use multiples of {PATCH}.")


@rule("masked_loss", "mask_folder")
def _masks(config: Config) -> Iterator[Problem]:
    if config.masked_loss == "folder" and not config.mask_folder:
        yield Problem("mask_folder", None, "masked loss needs a folder of masks", "Give mask_folder.")


@rule("learning_rate", "unet_lr", "text_encoder_lr", "train", "family")
def _something_learns(config: Config) -> Iterator[Problem]:
    train = _own(config, "train") or "both"
    parts = {"both": ("unet_lr", "text_encoder_lr"), "unet": ("unet_lr",), "text_encoder": ("text_encoder_lr",)}[train]
    given = {name: getattr(config, name) for name in parts}
    rates = [config.learning_rate if rate is None else rate for rate in given.values()]
    if not any(max(rate) if isinstance(rate, tuple) else rate for rate in rates):
        name = next((name for name, rate in given.items() if rate not in (None, config.learning_rate)), "learning_rate")
        yield Problem(name, getattr(config, name), "nothing would be learned at this rate", "Use a rate above 0.")


@rule("text_encoder_lr", "family")
def _one_text_encoder(config: Config) -> Iterator[Problem]:
    if isinstance(config.text_encoder_lr, tuple) and config.family in ("sd15", "sd2"):
        problem = f"{config.family} has one text encoder"
        yield Problem("text_encoder_lr", config.text_encoder_lr, problem, "Give one number.")
    elif isinstance(config.text_encoder_lr, tuple) and config.family == "flux":
        problem = "of Flux's text encoders CLIP-L alone is trained"
        yield Problem("text_encoder_lr", config.text_encoder_lr, problem, "Give one number.")


@rule("optimizer_args")
def _optimizer_args(config: Config) -> Iterator[Problem]:
    for argument in config.optimizer_args:
        name, equals, value = argument.partition("=")
        if not (name.strip().isidentifier() and equals and value.strip()):
            remedy = "Write each as name=value, such as weight_decay=0.01."
            yield Problem("optimizer_args", argument, "is not of the form name=value", remedy)


@rule("prediction_type", "scale_v_pred_loss", "v_pred_like_loss")
def _prediction(config: Config) -> Iterator[Problem]:
    if config.prediction_type == "epsilon" and config.scale_v_pred_loss:
        yield Problem("scale_v_pred_loss", True, "is for v-prediction models only", "Set it to false.")
    if config.prediction_type == "v" and config.v_pred_like_loss > 0:
        remedy = "Set it to 0; scale_v_pred_loss may be what you want."
        yield Problem("v_pred_like_loss", config.v_pred_like_loss, "is for epsilon models only", remedy)


@rule("kind", "conv_rank", "family")
def _kind(config: Config) -> Iterator[Problem]:
    if config.kind == "LoCon" and config.family == "flux":
        yield Problem("kind", "LoCon", "Flux has no convolutions, which LoCon trains besides", 'Set kind to "LoRA".')
    elif config.kind == "LoCon" and config.conv_rank == 0:
        remedy = 'Set conv_rank to 1 or more (8 is usual), or kind to "LoRA".'
        yield Problem("conv_rank", 0, "LoCon needs a convolution rank", remedy)


@rule("kind", "dropout")
def _lycoris_dropout(config: Config) -> Iterator[Problem]:
    if config.kind in LYCORIS_ARGS and config.dropout:
        remedy = "Set it to 0; rank_dropout and module_dropout can be used."
        yield Problem("dropout", config.dropout, f"LyCORIS has no such dropout for {config.kind}", remedy)


@rule("kind", "lokr_factor")
def _lokr_factor(config: Config) -> Iterator[Problem]:
    if config.kind == "LoKr" and config.lokr_factor == 0:
        yield Problem("lokr_factor", 0, "no weight can be divided by it", "Use 1 or more, or -1.")


@rule(*FLUX_BLOCKS, "train", "family")
def _block_choice(config: Config) -> Iterator[Problem]:
    if not ONLY_FLUX.test(config):
        return
    chosen = 0
    for name, count in FLUX_BLOCKS.items():
        try:
            chosen += len(chosen_blocks(getattr(config, name), count))
        except ValueError as wrong:
            yield Problem(name, getattr(config, name), str(wrong), "Use all, none, or numbers from 0 such as 0-5,8.")
            return
    if not chosen and config.train != "text_encoder":
        remedy = 'Choose blocks, or set train to "text_encoder".'
        yield Problem("single_blocks", config.single_blocks, "no block of the model is left to train", remedy)


@rule("swap_blocks", "gradient_checkpointing", "family")
def _swap(config: Config) -> Iterator[Problem]:
    if config.swap_blocks and config.gradient_checkpointing == "off" and ONLY_FLUX.test(config):
        remedy = 'Set gradient_checkpointing to "on" or "auto", or swap_blocks to 0.'
        problem = "blocks in host memory are moved in anew for the way back, which is gradient checkpointing"
        yield Problem("gradient_checkpointing", "off", problem, remedy)


@rule("block_wise", *BLOCKS)
def _block_lists(config: Config) -> Iterator[Problem]:
    if config.block_wise and all(getattr(config, name) is None for name in BLOCKS):
        remedy = f"Give {' or '.join(BLOCKS)}, or set block_wise to false."
        yield Problem("block_wise", True, "nothing is said about the blocks", remedy)


@rule("block_lr_weights")
def _block_shape(config: Config) -> Iterator[Problem]:
    shape = config.block_lr_weights
    if isinstance(shape, str) and not SHAPE.fullmatch(shape):
        remedy = f"Use {', '.join(BLOCK_SHAPES)}, one of them with +0.25 or the like, or a list of numbers."
        yield Problem("block_lr_weights", shape, "is not a shape", remedy)


@rule("family", *BLOCKS)
def _block_counts(config: Config) -> Iterator[Problem]:
    for name, by_family in BLOCKS.items():
        numbers = getattr(config, name)
        counts = by_family.get(config.family, sum(by_family.values(), ()))
        if isinstance(numbers, tuple) and len(numbers) not in counts:
            remedy = "Give 25 numbers for SD1.5 and SD2, 21 for SDXL, 57 for Flux, from the first block to the last."
            yield Problem(name, numbers, f"has {len(numbers)} numbers, one for each block is needed", remedy)
        elif isinstance(numbers, tuple) and not any(numbers):
            yield Problem(name, numbers, "leaves every block out", "Give at least one block a number above 0.")


@rule("min_timestep", "max_timestep")
def _timesteps(config: Config) -> Iterator[Problem]:
    if config.min_timestep >= config.max_timestep:
        remedy = f"Use at most {config.max_timestep - 1}, or raise max_timestep."
        yield Problem("min_timestep", config.min_timestep, "must be below max_timestep", remedy)


def _own(config: Config, name: str) -> Any:
    """The setting's value, the family's own if it is empty, or None if the family is not known yet."""
    value = getattr(config, name)
    return SETTINGS[name].family_defaults.get(config.family) if value is None else value


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

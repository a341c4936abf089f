"""A config in sd-scripts' arguments: for `--config_file` and `--dataset_config`, so that it trains the same there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lora_trainer.config.conversion import plain
from lora_trainer.config.interchange.blocks import BLOCK_READERS, block_arguments
from lora_trainer.config.interchange.conversion import Changed, Unsupported
from lora_trainer.config.interchange.facts import DEFAULTS, SCRIPTS
from lora_trainer.config.interchange.folders import parts_of
from lora_trainer.config.interchange.previews import prompt_line
from lora_trainer.config.interchange.report import Line, Report, written
from lora_trainer.config.networks import FLUX_BLOCKS, LYCORIS_ARGS, network_args, network_module
from lora_trainer.config.settings import SETTINGS, SUBSET_SETTINGS, Config, Subset
from lora_trainer.config.validation import caption_changes

Arguments = Mapping[str, Any]
PREPARED = (
    "dataset_name", "background", "tagger", "tag_threshold", "character_threshold", "excluded_tags", "tag_underscores",
    "existing_captions", "overwrite",
)  # fmt: skip
IN_PROMPTS = (
    "preview_prompts", "negative_prompt", "preview_size", "preview_steps", "preview_cfg", "preview_guidance",
    "preview_seed",
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """What sd-scripts is started with.

    `script`: which of its scripts; `training`: its arguments; `dataset`: its dataset config; `prompts`: the lines of
    the file that `sample_prompts` has to name, empty where no previews are wanted.
    """

    script: str
    training: dict[str, Any]
    dataset: dict[str, Any]
    prompts: tuple[str, ...]
    report: Report


def to_sd_scripts(config: Config, total_steps: int | None = None) -> Exported:
    """The config in sd-scripts' words; what differs from sd-scripts' own defaults is written out.

    `total_steps`: how many the run has, where that is known; a warm-up is then given in steps and not as a share.
    A family of "auto" is taken as sd15, and the report says so. Nothing is read but the names in picture folders.
    """
    report = Report()
    config = _settled(config, report)
    training: dict[str, Any] = {}
    for name, row in SETTINGS.items():
        if row.applies is None or row.applies.test(config):
            training |= _written(name, config, total_steps, report)
    training |= _network(config, report)
    prompts = tuple(_prompts(config, report))
    return Exported(SCRIPTS[config.family], training, _dataset(config, report), prompts, report)


def _network(config: Config, report: Report) -> Arguments:
    """What stands in `network_args`: convolutions, dropouts, blocks, and the kind where LyCORIS makes it."""
    values = {**network_args(config), **block_arguments(config)}
    for name, reason in _alike(config).items():
        report.unsupported.append(Line(written({name: getattr(config, name)}), "", reason))
        values = {key: value for key, value in values.items() if f"network_args.{key}" not in SAYING[name]}
    arguments = [f"{name}={value}" for name, value in values.items()]
    if arguments:
        told = "convolutions, dropouts, blocks" if config.kind in ("LoRA", "LoCon") else f"kind = {config.kind}"
        report.taken.append(Line(told, written({"network_args": arguments})))
    return {"network_args": arguments} if arguments else {}


SAYING = {
    "block_wise": tuple(argument for name in BLOCK_READERS for argument in SETTINGS[name].kohya),
    **{name: SETTINGS[name].kohya for name in FLUX_BLOCKS},
}


def _alike(config: Config) -> dict[str, str]:
    """The settings that treat blocks differently where the network cannot, and why."""
    flux = config.family == "flux"
    different = {name: getattr(config, name) for name in ("block_wise", *(FLUX_BLOCKS if flux else ()))}
    if config.kind in LYCORIS_ARGS:
        reason = f"LyCORIS treats all blocks of a {config.kind} alike"
        return {name: reason for name, value in different.items() if value not in (False, "all")}
    return {"block_wise": "sd-scripts has no such lists for Flux"} if flux and config.block_wise else {}


def _settled(config: Config, report: Report) -> Config:
    if config.family == "auto":
        report.changed.append(Line("family = auto", SCRIPTS["sd15"], "the base is taken as SD1.5; set family"))
        config = replace(config, family="sd15")
    return config.for_family(config.family)


def _written(name: str, config: Config, total_steps: int | None, report: Report) -> Arguments:
    """The arguments of one setting, which are also put into the report."""
    value = getattr(config, name)
    source = written({name: plain(value)})
    try:
        arguments = _arguments(name, config, total_steps)
    except Unsupported as missing:
        report.unsupported.append(Line(source, "", str(missing)))
        return {}
    reason = arguments.reason if isinstance(arguments, Changed) else ""
    values = arguments.value if isinstance(arguments, Changed) else arguments
    values = {key: plain(each) for key, each in values.items() if each != DEFAULTS.get(key, None) and each is not None}
    if values or reason:
        (report.changed if reason else report.taken).append(Line(source, written(values), reason))
    return values


def _arguments(name: str, config: Config, total_steps: int | None) -> Arguments | Changed:
    if name == "warmup_percent":
        return _warmup(config, total_steps)
    if name in CONVERSIONS:
        return CONVERSIONS[name](config)
    row, value = SETTINGS[name], getattr(config, name)
    if row.kohya:
        off = not value and row.kohya[0] not in DEFAULTS
        return {} if off or row.kohya[0].startswith("network_args.") else {row.kohya[0]: value}
    if value in (row.default, row.derived and row.derived(config)) or name in (*PREPARED, *IN_PROMPTS):
        return {}
    raise Unsupported("sd-scripts has no such setting")


# ---- the settings whose values sd-scripts says otherwise


def _family(config: Config) -> Arguments:
    return {"v2": True} if config.family == "sd2" else {}


def _part_of_flux(config: Config, name: str) -> Arguments:
    if getattr(config, name) is None:
        raise Unsupported("sd-scripts does not look for the file; give its path")
    return {name: getattr(config, name)}


def _prediction_type(config: Config) -> Arguments | Changed:
    if config.prediction_type == "auto":
        return Changed({}, 'sd-scripts does not look into the base and takes it for epsilon; set "v" for a v model')
    return {"v_parameterization": True} if config.prediction_type == "v" else {}


def _zero_terminal_snr(config: Config) -> Arguments:
    return {"zero_terminal_snr": True} if config.zero_terminal_snr == "on" else {}


def _epochs(config: Config) -> Arguments:
    return {} if config.max_steps else {"max_train_epochs": config.epochs}


def _max_steps(config: Config) -> Arguments:
    return {"max_train_steps": config.max_steps} if config.max_steps else {}


def _resolution(config: Config) -> Arguments:
    return {"resolution": ",".join(map(str, config.resolution or ()))}


def _bucket_step(config: Config) -> Arguments:
    multiple = 32 if config.family in ("sdxl", "flux") else 64
    if config.bucket_step % multiple:
        raise Unsupported(f"sd-scripts wants a multiple of {multiple} here, and takes {DEFAULTS['bucket_reso_steps']}")
    return {"bucket_reso_steps": config.bucket_step}


def _shuffle_tags(config: Config) -> Arguments | Changed:
    if config.shuffle_tags is None and config.family == "flux":
        return Changed({}, "sd-scripts cannot tell tags from sentences, and with Flux they are taken for sentences")
    if config.shuffle_tags is None:
        return Changed({"shuffle_caption": True}, "sd-scripts cannot tell tags from sentences, which it shuffles too")
    return {"shuffle_caption": True} if config.shuffle_tags else {}


def _caption_prefix(config: Config) -> Arguments | Changed:
    prefix = _prefix(config, config.caption_prefix)
    if config.trigger_word:
        return Changed({"caption_prefix": prefix}, f'"{config.trigger_word}" is put before captions that have it too')
    return {"caption_prefix": prefix} if prefix else {}


def _prefix(config: Config, prefix: str) -> str:
    """The prefix and the trigger word, which sd-scripts puts before a caption with a space between."""
    return " ".join(part for part in (prefix, config.trigger_word and f"{config.trigger_word},") if part)


def _masked_loss(config: Config) -> Arguments:
    return {"off": {}, "alpha": {"alpha_mask": True}, "folder": {"masked_loss": True}}[config.masked_loss]


def _cache_latents(config: Config) -> Arguments:
    return _cached("cache_latents", config.cache_latents)


def _cache_text(config: Config) -> Arguments:
    if config.family == "flux" and config.cache_text == "auto":
        return {} if caption_changes(config) else _cached("cache_text_encoder_outputs", "memory")
    if config.family in ("sdxl", "flux"):
        return _cached("cache_text_encoder_outputs", config.cache_text)
    if config.cache_text in ("memory", "disk"):
        raise Unsupported("train_network.py encodes captions anew at each step, which gives the same LoRA")
    return {}


def _cached(argument: str, where: str) -> Arguments:
    return {"memory": {argument: True}, "disk": {argument: True, f"{argument}_to_disk": True}}.get(where, {})


def _mixed_precision(config: Config) -> Arguments | Changed:
    if config.mixed_precision == "auto":
        return Changed({"mixed_precision": "bf16"}, "sd-scripts does not choose by the device; older GPUs want fp16")
    vae = {"no_half_vae": True} if config.mixed_precision == "fp16" else {}  # ours never runs in fp16
    return {"mixed_precision": config.mixed_precision, **vae}


def _base_precision(config: Config) -> Arguments:
    if config.base_precision == "fp8":  # for Flux the first would hold T5-XXL so, too
        return {"fp8_base_unet" if config.family == "flux" else "fp8_base": True}
    if config.base_precision in ("auto", {"no": "fp32"}.get(config.mixed_precision, config.mixed_precision)):
        return {}
    raise Unsupported("sd-scripts holds the base in the precision it computes in")


def _gradient_checkpointing(config: Config) -> Arguments:
    swaps = config.family == "flux" and config.swap_blocks > 0  # where ours does it unasked
    return {"gradient_checkpointing": True} if swaps or config.gradient_checkpointing == "on" else {}


def _attention(config: Config) -> Arguments:
    return {config.attention: True}


def _seed(config: Config) -> Arguments:
    return {"seed": config.seed} if config.seed >= 0 else {}


def _text_encoder_lr(config: Config) -> Arguments | Changed:
    if isinstance(config.text_encoder_lr, tuple):
        return Changed({"text_encoder_lr": config.text_encoder_lr[0]}, "sd-scripts has one rate for both encoders")
    return {"text_encoder_lr": config.text_encoder_lr}


def _warmup(config: Config, total_steps: int | None) -> Arguments | Changed:
    share, steps = config.warmup_percent / 100, config.max_steps or total_steps
    if not share or steps:
        return {"lr_warmup_steps": round((steps or 0) * share)} if share else {}
    share = float(f"{share:.12g}")
    return Changed({"lr_warmup_steps": share}, "as a share of all steps, which sd-scripts takes since version 0.9")


def _optimizer(config: Config) -> Arguments | Changed:
    if config.optimizer is None:
        return Changed({"optimizer_type": "AdamW8bit"}, "sd-scripts does not choose by the device; use AdamW on a CPU")
    return {"optimizer_type": OPTIMIZERS.get(config.optimizer, config.optimizer)}


OPTIMIZERS = {
    "CAME": "pytorch_optimizer.CAME",
    "ScheduleFreeAdamW": "AdamWScheduleFree",
    "ProdigyPlusScheduleFree": "prodigyplus.ProdigyPlusScheduleFree",
}


def _train(config: Config) -> Arguments:
    return {} if config.train == "both" else {f"network_train_{config.train}_only": True}


def _scale_v_pred_loss(config: Config) -> Arguments:
    if config.scale_v_pred_loss and config.prediction_type != "v":
        raise Unsupported('sd-scripts wants prediction_type = "v" said for it')
    return {"scale_v_pred_loss_like_noise_pred": True} if config.scale_v_pred_loss else {}


def _huber_schedule(config: Config) -> Arguments:
    if config.huber_schedule == "snr" and config.family == "flux":
        raise Unsupported("sd-scripts ends the run with it for Flux")
    return {"huber_schedule": config.huber_schedule}


def _kind(config: Config) -> Arguments:
    return {"network_module": network_module(config)}


def _timestep_bound(config: Config, name: str) -> Arguments:
    if config.family == "flux" and getattr(config, name) != SETTINGS[name].default:
        raise Unsupported("sd-scripts does not look at it for Flux")
    return {name: getattr(config, name)}


def _timestep_sampling(config: Config) -> Arguments:
    return {"timestep_sampling": config.timestep_sampling, "model_prediction_type": "raw"}


def _save_precision(config: Config) -> Arguments:
    return {"save_precision": {"fp32": "float"}.get(config.save_precision, config.save_precision)}


def _save_state(config: Config) -> Arguments:
    if config.save_state == "every":
        return {"save_state": True, "save_last_n_epochs_state": 1}
    return {"save_state_on_train_end": True} if config.save_state == "end" else {}


def _preview_sampler(config: Config) -> Arguments | Changed:
    sampler = SAMPLERS.get(config.preview_sampler.removesuffix(" Karras"))
    if sampler is None:
        return Changed(
            {"sample_sampler": "euler_a"}, "sd-scripts has no such sampler; previews look a little different"
        )
    if config.preview_sampler.endswith(" Karras"):
        return Changed({"sample_sampler": sampler}, "without Karras' noise levels, which sd-scripts has not")
    return {"sample_sampler": sampler}


SAMPLERS = {
    "Euler a": "euler_a",
    "Euler": "euler",
    "Heun": "heun",
    "DPM2": "dpm_2",
    "DPM2 a": "dpm_2_a",
    "DPM++ 2M": "dpmsolver++",
    "DDIM": "ddim",
    "PLMS": "pndm",
}


def _nothing(config: Config) -> Arguments:
    """Said by another setting, or by the dataset config."""
    return {}


CONVERSIONS: dict[str, Callable[[Config], Arguments | Changed]] = {
    "family": _family,
    **{name: partial(_part_of_flux, name=name) for name in ("clip_l", "t5xxl", "ae")},
    "t5_tokenizer": _nothing,  # sd-scripts fetches its own
    "prediction_type": _prediction_type,
    "zero_terminal_snr": _zero_terminal_snr,
    "subsets": _nothing,
    "repeats": _nothing,
    "epochs": _epochs,
    "max_steps": _max_steps,
    "resolution": _resolution,
    "bucket_step": _bucket_step,
    "trigger_word": _nothing,
    "shuffle_tags": _shuffle_tags,
    "caption_prefix": _caption_prefix,
    "masked_loss": _masked_loss,
    "cache_latents": _cache_latents,
    "cache_text": _cache_text,
    "mixed_precision": _mixed_precision,
    "base_precision": _base_precision,
    "gradient_checkpointing": _gradient_checkpointing,
    "attention": _attention,
    "seed": _seed,
    "text_encoder_lr": _text_encoder_lr,
    "optimizer": _optimizer,
    "train": _train,
    "scale_v_pred_loss": _scale_v_pred_loss,
    "huber_schedule": _huber_schedule,
    "kind": _kind,
    "block_wise": _nothing,
    **{name: partial(_timestep_bound, name=name) for name in ("min_timestep", "max_timestep")},
    "timestep_sampling": _timestep_sampling,
    "save_precision": _save_precision,
    "save_state": _save_state,
    "preview_sampler": _preview_sampler,
    **dict.fromkeys(IN_PROMPTS, _nothing),
}


# ---- previews and the dataset


def _prompts(config: Config, report: Report) -> Iterator[str]:
    if not (config.preview_every_epochs or config.preview_at_start):
        return
    if not config.preview_prompts:
        report.unsupported.append(Line("preview_prompts = []", "", "sd-scripts makes previews of given prompts only"))
    size = config.preview_size or (512, 512)
    for prompt in config.preview_prompts:
        text = prompt.replace("{trigger}", config.trigger_word)
        flux, seed, steps = config.family == "flux", config.preview_seed, config.preview_steps
        strength = f"g {config.preview_guidance:g}" if flux else f"l {config.preview_cfg:g}"
        yield prompt_line(text, "" if flux else config.negative_prompt, size, seed, steps, strength)


def _dataset(config: Config, report: Report) -> dict[str, Any]:
    """One entry for each folder that holds pictures; what it leaves out is as in the training arguments."""
    entries = [_subset(part, config) for subset in config.subsets for part in parts_of(subset)]
    if config.masked_loss == "folder":
        entries = [masked for entry in entries for masked in _masked(entry, config, report)]
    return {"general": {"num_repeats": config.repeats}, "datasets": [{"subsets": entries}]}


def _subset(subset: Subset, config: Config) -> dict[str, Any]:
    """What the folder says, by sd-scripts' names."""
    prefix = subset.caption_prefix
    if config.trigger_word and (prefix is not None or subset.is_regularisation):
        prefix = config.caption_prefix if prefix is None else prefix
        prefix = prefix if subset.is_regularisation else _prefix(config, prefix)
    said = replace(subset, caption_prefix=prefix)
    values = {row.kohya[0]: getattr(said, name) for name, row in SUBSET_SETTINGS.items()}
    off = {"is_reg": False, "class_tokens": ""}
    return {key: value for key, value in values.items() if value is not None and off.get(key) != value}


def _masked(entry: dict[str, Any], config: Config, report: Report) -> Iterator[dict[str, Any]]:
    """With the masks' folder; beside one sd-scripts knows neither regularisation pictures nor class tokens."""
    missing: dict[str, Any] = {name: entry.pop(name) for name in ("is_reg", "class_tokens") if name in entry}
    if missing:
        left_out = "the folder is left out" if "is_reg" in missing else "pictures without a caption file have none"
        reason = f"sd-scripts does not take it together with a mask folder; {left_out}"
        report.unsupported.append(Line(written({"folder": entry["image_dir"], **missing}), "", reason))
    if "is_reg" not in missing:
        yield {**entry, "conditioning_data_dir": config.mask_folder}

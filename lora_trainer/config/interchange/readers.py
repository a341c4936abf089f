"""The settings whose values sd-scripts says otherwise, read from its arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lora_trainer.config.interchange.blocks import BLOCK_READERS
from lora_trainer.config.interchange.conversion import Changed, Unsupported
from lora_trainer.config.interchange.exporting import SAMPLERS
from lora_trainer.config.interchange.given import Given, pairs
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import SETTINGS
from lora_trainer.config.values import BOOLEANS, convert, described

LYCORIS = ("lycoris.kohya", "locon.locon_kohya", "lycoris.locon_kohya")
KINDS = {"lora": "LoRA", "locon": "LoRA", "loha": "LoHa", "lokr": "LoKr"}
OF_SD_SCRIPTS = ("networks.lora", "networks.lora_flux", "networks.loha", "networks.lokr")
WITHOUT_CONVOLUTIONS = ("attn-mlp", "attn-only", "full-lin", "unet-transformer-only")
PRESETS = ("full", "full-lin", "attn-mlp", "unet-transformer-only", "unet-only")
OPTIMIZERS = {choice.lower(): choice for choice in SETTINGS["optimizer"].choices} | {
    "dadaptadampreprint": "DAdaptation",
    "adamwschedulefree": "ScheduleFreeAdamW",
}
ON_GPU = {"pagedadamw": "AdamW", "pagedadamw32bit": "AdamW", "pagedlion8bit": "Lion8bit"}

Read = Any  # the setting's value; None for our own default; or Changed


def value_of(source: Given, row: Setting) -> Any:
    """The first of the setting's arguments in its type; a switch left out is off. Unsupported where it does not fit."""
    name = row.kohya[0]
    value = source.get(name)
    if value is None:
        return False if bool in row.types else None
    return fitted(value, row)


def fitted(value: Any, row: Setting) -> Any:
    """A value, however it is written, in the setting's type."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if bool in row.types and str(value).strip().lower() in BOOLEANS:
        return BOOLEANS[str(value).strip().lower()]
    if isinstance(value, str) and {int, float} & set(row.types):
        value = _number(value)
    if row.types == (str,) and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    try:
        value = convert(value, row)
    except ValueError:
        raise Unsupported(f"is not {described(row)}") from None
    if row.choices and value not in row.choices:
        raise Unsupported(f"is not {described(row)}")
    return value


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


# ---- model


def _prediction_type(source: Given) -> Read:
    v = source.on("v_parameterization")
    return None if source.family == "flux" else "v" if v else "epsilon"


def _zero_terminal_snr(source: Given) -> Read:
    on = source.on("zero_terminal_snr")
    return None if source.family == "flux" else "on" if on else "off"


def _clip_skip(source: Given) -> Read:
    return int(source.number("clip_skip")) or None if "clip_skip" in source else None


# ---- dataset


def _epochs(source: Given) -> Read:
    return int(source.number("max_train_epochs")) or None


def _max_steps(source: Given) -> Read:
    steps = int(source.number("max_train_steps"))
    if not source.number("max_train_epochs"):
        return steps
    return Changed(0, "max_train_epochs comes first") if "max_train_steps" in source and steps else 0


def _resolution(source: Given) -> Read:
    value = source.get("resolution")
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if isinstance(value, str):
        value = value.strip("[]() ").replace(" ", "")
    return None if value is None else fitted(value, SETTINGS["resolution"])


def _min_bucket(source: Given) -> Read:
    side, step = int(source.number("min_bucket_reso")), _step(source)
    rounded = max(step, side // step * step)
    return side if side == rounded else Changed(rounded, f"is brought to a multiple of {step}, as sd-scripts does")


def _max_bucket(source: Given) -> Read:
    side, step = int(source.number("max_bucket_reso")), _step(source)
    rounded = -(-side // step) * step
    return side if side == rounded else Changed(rounded, f"is brought to a multiple of {step}, as sd-scripts does")


def _bucket_step(source: Given) -> Read:
    given, step = source.number("bucket_reso_steps"), _step(source)
    return step if step == given else Changed(step, "latents are made of squares of 8 x 8 pixels")


def _step(source: Given) -> int:
    return max(8, round(source.number("bucket_reso_steps") / 8) * 8)


def _caption_extension(source: Given) -> Read:
    ending = str(source.get("caption_extension")).strip()
    if ending in SETTINGS["caption_extension"].choices:
        return ending
    if f".{ending}" in SETTINGS["caption_extension"].choices:
        return Changed(f".{ending}", "with the dot that it lacks")
    raise Unsupported("captions are read from .txt and .caption files only")


def _masked_loss(source: Given) -> Read:
    masked, alpha, folder = source.on("masked_loss"), source.on("alpha_mask"), "conditioning_data_dir" in source
    if masked and not (alpha or folder):
        raise Unsupported("neither alpha_mask nor conditioning_data_dir says what is masked, so that nothing is")
    return "alpha" if alpha else "folder" if masked and folder else "off"


def _cache_latents(source: Given) -> Read:
    memory, disk = source.on("cache_latents"), source.on("cache_latents_to_disk")
    changing = [name for name in ("random_crop", "color_aug") if source.on(name)]
    if changing and (memory or disk):
        return Changed("off", f"{' and '.join(changing)} would have no effect, and sd-scripts refuses both together")
    return "disk" if disk else "memory" if memory else "off"


def _cache_text(source: Given) -> Read:
    memory = source.on("cache_text_encoder_outputs")
    disk = source.on("cache_text_encoder_outputs_to_disk")
    return "disk" if memory and disk else "memory" if memory else None


# ---- training


def _base_precision(source: Given) -> Read:
    full = [source.on("full_fp16"), source.on("full_bf16")]
    if any([source.on("fp8_base"), source.on("fp8_base_unet")]):  # ours holds the U-Net so, as the second one says
        return "fp8"
    if any(full):
        return Changed("auto", "the base is held so anyway, and the LoRA is kept in fp32, which is steadier")
    return None


def _swap_blocks(source: Given) -> Read:
    if source.on("split_mode") and "blocks_to_swap" not in source:
        return Changed(18, "sd-scripts does so in place of split_mode")
    return int(source.number("blocks_to_swap"))


def _gradient_checkpointing(source: Given) -> Read:
    if "gradient_checkpointing" not in source:
        return None
    return "on" if source.on("gradient_checkpointing") else "off"


def _attention(source: Given) -> Read:
    source.get("sdpa")
    if source.on("xformers"):
        return Changed("sdpa", "torch's own gives the same and needs no package")
    return None


def _seed(source: Given) -> Read:
    return None if source.get("seed") is None else fitted(source.get("seed"), SETTINGS["seed"])


# ---- learning rate and optimizer


def _learning_rate(source: Given) -> Read:
    own = {"unet_lr": "network_train_text_encoder_only", "text_encoder_lr": "network_train_unet_only"}
    if "learning_rate" in source or not all(name in source or source.on(untrained) for name, untrained in own.items()):
        return fitted(source.get("learning_rate"), SETTINGS["learning_rate"])
    return None


def _text_encoder_lr(source: Given) -> Read:
    rates = source.get("text_encoder_lr")
    if isinstance(rates, str):
        rates = rates.replace(",", " ").split()
    if isinstance(rates, list) and len(rates) > 1:
        first = fitted(rates[0], SETTINGS["text_encoder_lr"])
        same = all(str(rate) == str(rates[0]) for rate in rates)
        of_both = "sd-scripts uses the first one for both text encoders"
        reason = "of Flux's text encoders CLIP-L alone is trained" if source.family == "flux" else of_both
        return first if same else Changed(first, reason)
    return None if rates is None else fitted(rates, SETTINGS["text_encoder_lr"])


def warmup_percent(source: Given, total_steps: int | None) -> Read:
    """`total_steps`: how many the run has, where that is known."""
    text = str(source.get("lr_warmup_steps") or 0).strip()
    amount = source.number("lr_warmup_steps")
    if text.endswith("%"):
        return fitted(text[:-1], SETTINGS["warmup_percent"])
    if 0 < amount < 1 or text == "1.0":
        return Changed(float(f"{amount * 100:.12g}"), "a share of all steps")
    if amount and not total_steps:
        remedy = "import it again where the pictures are, or set warmup_percent by hand"
        raise Unsupported(f"how large a share of the run that is depends on how many pictures there are; {remedy}")
    return Changed(min(100.0, amount / total_steps * 100), f"of {total_steps} steps") if amount and total_steps else 0.0


def _schedule(source: Given) -> Read:
    name, custom = str(source.get("lr_scheduler")).strip(), str(source.get("lr_scheduler_type") or "")
    if custom.rpartition(".")[2] == "CosineAnnealingLR":
        source.get("lr_scheduler_args")
        return Changed("cosine", f"{custom} falls so over the whole run, whatever T_max it was given")
    if custom:
        raise Unsupported(f"{custom} is not among the schedules, and the usual one is taken")
    if name.startswith("adafactor"):
        return Changed("constant", "Adafactor with relative steps sets the rate itself")
    return fitted(name.lower(), SETTINGS["schedule"])


def _restarts(source: Given) -> Read:
    return max(1, int(source.number("lr_scheduler_num_cycles")))


def _optimizer(source: Given) -> Read:
    name = str(source.get("optimizer_type")).strip()
    last = name.rpartition(".")[2].lower()
    if last in ON_GPU:
        return Changed(ON_GPU[last], "the same steps, without moving its memory to the CPU's")
    if last not in OPTIMIZERS:
        raise Unsupported("is not among the optimizers; AdamW8bit (without an NVIDIA GPU AdamW) is taken")
    return OPTIMIZERS[last]


def _optimizer_args(source: Given) -> Read:
    arguments = pairs(source.get("optimizer_args") or ())
    last = str(source.get("optimizer_type")).strip().rpartition(".")[2].lower()
    if arguments and last not in (*OPTIMIZERS, *ON_GPU):
        raise Unsupported("belongs to an optimizer that is not there")
    return tuple(argument.strip().strip("\"'").replace('"', "") for argument in arguments)


def _train(source: Given) -> Read:
    unet, text = source.on("network_train_unet_only"), source.on("network_train_text_encoder_only")
    if unet and text:
        raise Unsupported("only the U-Net and only the text encoder leaves nothing to train")
    if str(source.get("network_args.preset")).startswith("unet-"):
        return "unet"
    return "unet" if unet else "text_encoder" if text else "both"


# ---- network


def _module(source: Given) -> str:
    return str(source.get("network_module") or "networks.lora").strip()


def _algorithm(source: Given) -> str:
    """LyCORIS's word for the kind; "lora" for sd-scripts' own module."""
    module = _module(source)
    if module in LYCORIS:
        return str(source.get("network_args.algo") or "lora").lower()
    return {"networks.loha": "loha", "networks.lokr": "lokr"}.get(module, "lora")


def _kind(source: Given) -> Read:
    module, algorithm = _module(source), _algorithm(source)
    source.get("LoRA_type")
    if module not in (*LYCORIS, *OF_SD_SCRIPTS) or algorithm not in KINDS:
        what = module if module not in LYCORIS else f"LyCORIS's {algorithm}"
        raise Unsupported(f"{what} is not among the kinds of network, and a LoRA is trained")
    if source.on("network_args.dora_wd") and KINDS[algorithm] == "LoRA":
        return _dora(source)
    convolutions = _conv_rank(source) and source.family != "flux"
    kind = "LoCon" if KINDS[algorithm] == "LoRA" and convolutions else KINDS[algorithm]
    if module in LYCORIS and str(source.get("network_args.preset") or "full") not in PRESETS:
        return Changed(kind, "the preset is not known: attention and feed-forward layers and convolutions are trained")
    return kind


def _dora(source: Given) -> Read:
    if source.get("network_args.wd_on_output") is not None and not source.on("network_args.wd_on_output"):
        return "DoRA"
    return Changed("DoRA", "with lengths of inputs and not of outputs, the form that both WebUIs apply rightly")


def _rank(source: Given) -> Read:
    rank, most = int(source.number("network_dim")), int(SETTINGS["rank"].maximum or 0)
    if rank > most and _algorithm(source) == "lokr":
        return Changed(most, "whole matrices are trained with either, for LoKr's are not larger")
    return rank


def _alpha(source: Given) -> Read:
    alpha = source.number("network_alpha")
    if alpha or "network_alpha" not in source:
        return alpha
    return Changed(source.number("network_dim"), "0 stands for the rank")


def _conv_rank(source: Given) -> Read:
    rank = int(source.number("network_args.conv_dim"))
    if _module(source) not in LYCORIS:
        return rank
    preset = source.get("network_args.preset") or "full"
    return 0 if preset in WITHOUT_CONVOLUTIONS else rank or int(source.number("network_dim"))


def _conv_alpha(source: Given) -> Read:
    rank, alpha = _conv_rank(source), source.number("network_args.conv_alpha")
    if not rank:
        return None
    usual = source.number("network_alpha") if _module(source) in LYCORIS else 1.0
    return (alpha or rank) if "network_args.conv_alpha" in source else usual or rank


def _chosen_blocks(source: Given, kind: str) -> Read:
    """`kind`: "double" or "single"; train_blocks names the one that is trained."""
    chosen = source.get(f"network_args.train_{kind}_block_indices")
    if chosen != "all" and _module(source) in LYCORIS:
        raise Unsupported("LyCORIS trains all blocks, and so does the config")
    return chosen if source.get("network_args.train_blocks") in (None, "all", kind) else "none"


def _dropout(source: Given) -> Read:
    return source.number("network_args.dropout") or source.number("network_dropout")


# ---- noise


def _timestep_bound(source: Given, name: str) -> Read:
    value = value_of(source, SETTINGS[name])
    if source.family == "flux" and value not in (None, 0, SETTINGS[name].default):
        return Changed(SETTINGS[name].default, "sd-scripts does not look at it for Flux")
    return value


# ---- saving and previews


def _output_name(source: Given) -> Read:
    return str(source.get("output_name")).strip().removesuffix(".safetensors")


def _save_every_epochs(source: Given) -> Read:
    every, ratio = source.number("save_every_n_epochs"), source.number("save_n_epoch_ratio")
    epochs = int(source.number("max_train_epochs"))
    if every >= 1:
        return int(every)
    if ratio and epochs:
        return Changed(max(1, int(epochs / ratio)), f"about {ratio:g} files, as save_n_epoch_ratio asks")
    return Changed(epochs or SETTINGS["save_every_epochs"].maximum, "only the end is saved, as sd-scripts does unasked")


def _save_precision(source: Given) -> Read:
    return {"float": "fp32", "float32": "fp32"}.get(str(source.get("save_precision")), source.get("save_precision"))


def _save_state(source: Given) -> Read:
    if source.on("save_state"):
        return "every"
    if source.on("save_state_on_train_end"):
        return "end"
    return "off" if "save_state" in source else None


def _preview_every_epochs(source: Given) -> Read:
    every = max(0, int(source.number("sample_every_n_epochs")))
    if not every and source.number("sample_every_n_steps") > 0:
        return Changed(1, "previews are made by epochs, not steps")
    return every


def _preview_sampler(source: Given) -> Read:
    name = str(source.get("sample_sampler")).removeprefix("k_")
    ours = {theirs: ours for ours, theirs in SAMPLERS.items()}
    if name not in ours:
        raise Unsupported("is not among the samplers of previews")
    return ours[name]


# What else says of a setting, besides its own arguments.
ALSO = {
    "kind": (
        "LoRA_type",
        "network_args.algo",
        "network_args.preset",
        "network_args.dora_wd",
        "network_args.wd_on_output",
    ),
    "masked_loss": ("conditioning_data_dir",),
    "dropout": ("network_args.dropout",),
    "schedule": ("lr_scheduler_type",),
    "swap_blocks": ("split_mode",),
    "double_blocks": ("network_args.train_blocks",),
    "single_blocks": ("network_args.train_blocks",),
    "save_every_epochs": ("save_n_epoch_ratio",),
    "preview_every_epochs": ("sample_every_n_steps",),
}

READERS: dict[str, Callable[[Given], Read]] = {
    "prediction_type": _prediction_type,
    "zero_terminal_snr": _zero_terminal_snr,
    "clip_skip": _clip_skip,
    "epochs": _epochs,
    "max_steps": _max_steps,
    "resolution": _resolution,
    "min_bucket": _min_bucket,
    "max_bucket": _max_bucket,
    "bucket_step": _bucket_step,
    "caption_extension": _caption_extension,
    "masked_loss": _masked_loss,
    "cache_latents": _cache_latents,
    "cache_text": _cache_text,
    "base_precision": _base_precision,
    "swap_blocks": _swap_blocks,
    "gradient_checkpointing": _gradient_checkpointing,
    "attention": _attention,
    "seed": _seed,
    "learning_rate": _learning_rate,
    "text_encoder_lr": _text_encoder_lr,
    "schedule": _schedule,
    "restarts": _restarts,
    "optimizer": _optimizer,
    "optimizer_args": _optimizer_args,
    "train": _train,
    "kind": _kind,
    "rank": _rank,
    "alpha": _alpha,
    "conv_rank": _conv_rank,
    "conv_alpha": _conv_alpha,
    "double_blocks": partial(_chosen_blocks, kind="double"),
    "single_blocks": partial(_chosen_blocks, kind="single"),
    **BLOCK_READERS,
    "dropout": _dropout,
    "min_timestep": partial(_timestep_bound, name="min_timestep"),
    "max_timestep": partial(_timestep_bound, name="max_timestep"),
    "output_name": _output_name,
    "save_every_epochs": _save_every_epochs,
    "save_precision": _save_precision,
    "save_state": _save_state,
    "preview_every_epochs": _preview_every_epochs,
    "preview_sampler": _preview_sampler,
    "tagger": lambda source: "none",
}

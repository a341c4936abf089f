"""Arguments under the names that other programs give them: kohya_ss's GUI, lora-scripts, and older sd-scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lora_trainer.config.interchange.command_line import arguments_of
from lora_trainer.config.interchange.facts import RANKS_OF_LAYERS
from lora_trainer.config.interchange.given import NO_BLOCK, pairs, split
from lora_trainer.config.interchange.report import Line, written
from lora_trainer.config.interchange.source import Source

Values = dict[str, Any]

RENAMED = {
    "batch_size": "train_batch_size",
    "caption_extention": "caption_extension",
    "lora_network_weights": "network_weights",
    "lr_restart_cycles": "lr_scheduler_num_cycles",
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "prompt_file": "sample_prompts",
}
OF_FAMILY = {  # what the GUI has once for each family
    "sdxl": {"sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs", "sdxl_no_half_vae": "no_half_vae"},
    "flux": {
        "flux1_cache_text_encoder_outputs": "cache_text_encoder_outputs",
        "flux1_cache_text_encoder_outputs_to_disk": "cache_text_encoder_outputs_to_disk",
    },
}
FAMILIES = {"sd-lora": "auto", "sdxl-lora": "sdxl", "flux-lora": "flux"}  # lora-scripts' model_train_type

OF_KOHYA = (
    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas",
    "conv_block_dims", "conv_block_alphas", "rank_dropout", "module_dropout",
)  # fmt: skip
OF_LYCORIS = (
    "conv_dim", "conv_alpha", "use_tucker", "use_cp", "use_scalar", "rank_dropout", "rank_dropout_scale",
    "module_dropout", "bypass_mode", "dora_wd", "train_norm", "factor", "decompose_both", "rescaled",
)  # fmt: skip
OF_FLUX = (
    *(f"{name}_dim" for name in RANKS_OF_LAYERS), "in_dims", *NO_BLOCK, "ggpo_beta", "ggpo_sigma", "split_qkv",
    "train_t5xxl",
)  # fmt: skip
CONVOLUTIONS = ("conv_dim", "conv_alpha")
TYPES: dict[str, tuple[str, tuple[str, ...]]] = {  # LoRA_type -> module, and which fields become its arguments
    "Standard": ("networks.lora", OF_KOHYA),
    "Kohya LoCon": ("networks.lora", (*OF_KOHYA, *CONVOLUTIONS)),
    "Kohya LoHa": ("networks.loha", (*CONVOLUTIONS, "rank_dropout", "module_dropout", "use_tucker")),
    "Kohya LoKr": ("networks.lokr", (*CONVOLUTIONS, "rank_dropout", "module_dropout", "use_tucker", "factor")),
    "Kohya DyLoRA": ("networks.dylora", (*OF_KOHYA, *CONVOLUTIONS, "unit")),
    "LoRA-FA": ("networks.lora_fa", OF_KOHYA),
    "Flux1": ("networks.lora_flux", (*OF_FLUX, "rank_dropout", "module_dropout")),
    "Flux1 OFT": ("networks.oft_flux", ()),
}
ALGORITHMS = {"native fine-tuning": "full"}
FIELDS = frozenset(  # of the GUI, where LoRA_type does not pass them on
    (*OF_KOHYA, *OF_LYCORIS, *OF_FLUX,
     "unit", "constrain", "train_on_input", "model_list", "noise_offset_type", "epoch",
     "LyCORIS_preset", "conv_alphas", "conv_dims", "no_token_padding", "save_as", "lr_warmup", "sdxl", "t5xxl_lr",
     "loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio", "train_blocks", "use_wandb",
     "flux1_checkbox", "sd3_checkbox", "additional_parameters", "mem_eff_save", "fp8_base_unet",
     "guidance_scale", "discrete_flow_shift", "timestep_sampling", "apply_t5_attn_mask", "model_prediction_type",
     "t5xxl_max_token_length", "ae", "clip_l", "t5xxl", "split_mode", "train_lora_ggpo", "logit_mean",
     "logit_std", "mode_scale", "weighting_scheme", "stop_text_encoder_training_pct")
)  # fmt: skip
ONLY_FLUX = (
    "guidance_scale", "discrete_flow_shift", "timestep_sampling", "apply_t5_attn_mask", "model_prediction_type",
    "t5xxl_max_token_length", "ae", "clip_l", "t5xxl", "split_mode", "fp8_base_unet",
)  # fmt: skip


# Whose fields begin so; none of these models can be trained here.
FOREIGN = {"sd3": "SD3", "hunyuan": "HunyuanImage", "anima": "Anima", "lumina": "Lumina"}


def respelled(source: Source) -> Source:
    """The source in the names that sd-scripts has today."""
    given = source.arguments.items()
    values = {name: value for name, value in given if NO_BLOCK.get(name) == value or not _empty(value)}
    left = tuple(name for name in source.arguments if name not in values)
    source = replace(source, arguments=values, left=(*source.left, *left))
    if "LoRA_type" in values or "max_resolution" in values:
        source = _from_gui(source)
    return _renamed(_from_lora_scripts(_old_switches(source)))


def _renamed(source: Source) -> Source:
    values, spelled = dict(source.arguments), dict(source.spelled)
    family, by = source.family, source.family_by
    for switch, meant in {"sdxl": "sdxl", "flux1_checkbox": "flux"}.items():
        if _on(values.pop(switch, False)):
            family, by = meant, f"{switch} = true"
    for old, name in {**RENAMED, **OF_FAMILY.get(family, {})}.items():
        value = values.pop(old, None)
        if not _off(value) and _off(values.get(name)):
            values[name], spelled[name] = value, old
    others = [name for names in OF_FAMILY.values() for name in names if values.pop(name, None) is not None]
    epochs = values.pop("epoch", None)  # of the GUI, which works out the steps from it
    if not any(_number(values.get(name)) for name in ("max_train_epochs", "max_train_steps")) and _number(epochs):
        values["max_train_epochs"], spelled["max_train_epochs"] = epochs, "epoch"
    left = (*source.left, *others)
    return replace(source, arguments=values, spelled=spelled, family=family, family_by=by, left=left)


def _old_switches(source: Source) -> Source:
    values, spelled = dict(source.arguments), dict(source.spelled)
    for switch, optimizer in {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}.items():
        if _on(values.pop(switch, False)) and "optimizer_type" not in values and "optimizer" not in values:
            values["optimizer_type"], spelled["optimizer_type"] = optimizer, f"{switch}, so optimizer_type"
    return replace(source, arguments=values, spelled=spelled)


# ---- lora-scripts (Akegarasu)


def _from_lora_scripts(source: Source) -> Source:
    values = dict(source.arguments)
    kind = str(values.pop("model_train_type", ""))
    family = FAMILIES.get(kind, source.family)
    network = pairs(values.pop("network_args", ())) + pairs(values.pop("network_args_custom", ()))
    if str(values.get("network_module")) == "lycoris.kohya":
        fields = {"lycoris_algo": "algo", "lokr_factor": "factor", "dropout": "dropout", "train_norm": "train_norm"}
        network += _moved(values, {**fields, "conv_dim": "conv_dim", "conv_alpha": "conv_alpha"})
    weights = {name: name for name in OF_KOHYA[:6]}
    if _on(values.pop("enable_block_weights", True)):
        network += _moved(values, weights)
    if network:
        values["network_args"] = network
    optimizer = pairs(values.pop("optimizer_args", ())) + pairs(values.pop("optimizer_args_custom", ()))
    optimizer += _moved(values, {"prodigy_d0": "d0", "prodigy_d_coef": "d_coef"})
    if optimizer:
        values["optimizer_args"] = optimizer
    if "positive_prompts" in values:
        values["sample_prompts"] = [_prompt_line(values)]
    if not _on(values.pop("enable_preview", True)):
        for name in ("sample_prompts", "sample_every_n_epochs", "sample_sampler"):
            values.pop(name, None)
    by = f"model_train_type = {kind}" if kind else source.family_by
    return replace(source, arguments=values, family=family, family_by=by)


def _moved(values: Values, fields: Mapping[str, str]) -> list[str]:
    """Takes fields out of the values, as name=value under another name."""
    return [f"{name}={values.pop(field)}" for field, name in fields.items() if field in values]


def _prompt_line(values: Values) -> str:
    options = {"negative_prompts": "n", "sample_width": "w", "sample_height": "h", "sample_cfg": "l"}
    options |= {"sample_steps": "s", "sample_seed": "d"}
    words = [f"--{option} {values.pop(field)}" for field, option in options.items() if field in values]
    return " ".join([str(values.pop("positive_prompts")), *words])


# ---- kohya_ss's GUI


def _from_gui(source: Source) -> Source:
    values, spelled = dict(source.arguments), dict(source.spelled)
    changed = list(source.changed)
    if "LoRA_type" in values:
        _network(values)
        _trained_parts(values, spelled)
        spelled |= {f"network_args.{name}": name for name in (*OF_KOHYA, *OF_LYCORIS)}
    _noise(values, changed)
    _switches(values)
    _cycles(values)
    if text := str(values.pop("additional_parameters", "")).strip():
        values |= arguments_of(split(text))
    others = {name: FOREIGN[name.partition("_")[0]] for name in values if name.partition("_")[0] in FOREIGN}
    unsupported = [
        Line(f"{name} = true", "", f"{family} is not among the families")
        for name, family in others.items()
        if name.endswith("_checkbox") and _on(values[name])
    ]
    left = [name for name in values if name in others or name in FIELDS - {"sdxl", "flux1_checkbox", "epoch"}]
    if not _on(values.get("flux1_checkbox", False)):
        left = [name for name in left if name not in ONLY_FLUX] + [name for name in ONLY_FLUX if name in values]
    else:
        left = [name for name in left if name not in ONLY_FLUX]
    kept = {name: value for name, value in values.items() if name not in left}
    return replace(
        source,
        arguments=kept,
        changed=tuple(changed),
        unsupported=(*source.unsupported, *unsupported),
        spelled=spelled,
        left=(*source.left, *left),
        whole=True,
    )


def _network(values: Values) -> None:
    """The network's module and arguments, as the GUI puts them together from LoRA_type and its fields."""
    kind = str(values["LoRA_type"])
    module, fields = TYPES.get(kind, ("lycoris.kohya", OF_LYCORIS))
    said = [name for name in fields if NO_BLOCK.get(name, "") == values.get(name) or not _off(values.get(name))]
    arguments = _moved(values, {name: name for name in said})
    if kind.startswith("LyCORIS/") or kind == "LoCon":
        algorithm = kind.rpartition("/")[2].lower()
        arguments += [f"algo={ALGORITHMS.get(algorithm, algorithm)}", f"preset={values.pop('LyCORIS_preset', 'full')}"]
    elif kind not in TYPES:
        module = kind
    elif kind == "Flux1" and _on(values.get("split_mode")):
        arguments.append("train_blocks=single")  # the GUI does so; without it all are trained, whatever is chosen
    ratios = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
    arguments += _moved(values, {name: name for name in ratios if not _off(values.get(name))})
    values["network_module"] = module
    values["network_args"] = arguments


def _trained_parts(values: Values, spelled: dict[str, str]) -> None:
    """A rate of 0 leaves a part out; both 0 mean the common rate."""
    unet, text = _number(values.get("unet_lr")), _number(values.get("text_encoder_lr"))
    for only, untrained in {"unet": "text_encoder", "text_encoder": "unet"}.items():
        if (unet if only == "unet" else text) and not (text if only == "unet" else unet):
            values[f"network_train_{only}_only"] = True
            spelled[f"network_train_{only}_only"] = f"{untrained}_lr = 0, so that network_train_{only}_only"
    for name in ("unet_lr", "text_encoder_lr"):
        if not _number(values.get(name)):
            values.pop(name, None)


def _noise(values: Values, changed: list[Line]) -> None:
    """The GUI passes on one of the two kinds of noise, as noise_offset_type says."""
    kind = str(values.get("noise_offset_type", "Original"))
    offset = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    multires = ("multires_noise_iterations", "multires_noise_discount")
    unused = {name: values.pop(name) for name in (multires if kind == "Original" else offset) if name in values}
    telling = {name: value for name, value in unused.items() if not _off(value) and name != "multires_noise_discount"}
    if telling:
        changed.append(Line(written(telling), "", f"not used by the GUI either, with noise_offset_type = {kind}"))


def _switches(values: Values) -> None:
    """What the GUI holds as a text or 0 and passes on as a switch or not at all."""
    attention = str(values.pop("xformers", "")).lower()
    values |= {"xformers": True} if attention in ("xformers", "true") else {}
    for name in ("seed", "clip_skip", "max_timestep", "min_timestep", "max_train_steps", "max_train_epochs"):
        if _off(values.get(name)):
            values.pop(name, None)


def _cycles(values: Values) -> None:
    if str(values.get("lr_scheduler")) == "cosine_with_restarts" and "lr_scheduler_num_cycles" not in values:
        values["lr_scheduler_num_cycles"] = values.get("epoch", 1)
    warmup = _number(values.get("lr_warmup"))
    if warmup and not _number(values.get("lr_warmup_steps")):
        values["lr_warmup_steps"] = f"{warmup:g}%"


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none", "null"))


def _off(value: Any) -> bool:
    return _empty(value) or str(value).lower() in ("false", "0", "0.0", "[]")


def _on(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes", "on")


def _number(value: Any) -> float:
    try:
        return float(value or 0)
    except (TypeError, ValueError):
        return 0.0

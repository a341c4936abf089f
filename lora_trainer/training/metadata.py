"""What a LoRA file says of itself: `ss_*` as sd-scripts writes it, `modelspec.*`, and the whole config."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from lora_trainer import __version__
from lora_trainer.config import SETTINGS, as_dict
from lora_trainer.config.networks import network_args, network_module
from lora_trainer.dataset.summary import bucket_info, dataset_dirs, tag_frequency
from lora_trainer.training.plan import filled
from lora_trainer.training.run import Run

BASE_VERSIONS = {"sd15": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0", "flux": "flux1"}
ARCHITECTURES = {
    "sd15": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-512/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
    "flux": "flux-1-{variant}/lora",
}
IMPLEMENTATIONS = {
    "sdxl": "https://github.com/Stability-AI/generative-models",
    "flux": "https://github.com/black-forest-labs/flux",
}
CONFIG_KEY = "lora_trainer.config"


def metadata(run: Run, epoch: int, step: int, known: Mapping[str, str]) -> dict[str, str]:
    """The file's metadata after `step` steps, in epoch `epoch`; no path of the user's machine is in it.

    `known`: what only the running training knows: the base's hashes, the optimizer's name, what "auto" came to.
    """
    facts = {**_settings(run), **_facts(run, epoch, step), **_flow_facts(run), **known, **_model_spec(run)}
    config = as_dict(run.plan.config, whole_paths=False)
    facts[CONFIG_KEY] = json.dumps({**config, "seed": run.plan.seed}, ensure_ascii=False)
    return {key: value if isinstance(value, str) else str(value) for key, value in facts.items()}


def _settings(run: Run) -> dict[str, Any]:
    """Every setting that sd-scripts records, under its key."""
    config = run.plan.config
    return {row.metadata: getattr(config, row.name) for row in SETTINGS.values() if row.metadata}


def _facts(run: Run, epoch: int, step: int) -> dict[str, Any]:
    plan, config = run.plan, run.plan.config
    used = [picture for picture in plan.pictures if not picture.subset.is_regularisation]
    return {
        "ss_output_name": run.outputs.name,
        "ss_sd_model_name": plan.base.path.name,
        "ss_base_model_version": BASE_VERSIONS[plan.base.family],
        "ss_v2": plan.base.family == "sd2",
        "ss_network_module": network_module(config),
        "ss_network_args": json.dumps(network_args(config)),
        "ss_seed": plan.seed,
        "ss_steps": step,
        "ss_epoch": epoch,
        "ss_num_epochs": plan.epochs,
        "ss_max_train_steps": plan.total_steps,
        "ss_num_batches_per_epoch": plan.batches_per_epoch,
        "ss_num_train_images": sum(len(batch) for batch in plan.batches(0)),
        "ss_num_reg_images": len(plan.pictures) - len(used),
        "ss_lr_warmup_steps": plan.warmup_steps,
        "ss_resolution": config.resolution,
        "ss_shuffle_caption": any(picture.subset.shuffle_tags for picture in used),
        "ss_total_batch_size": config.batch_size * config.gradient_accumulation,
        "ss_zero_terminal_snr": plan.zero_terminal_snr,
        "ss_cache_latents": config.cache_latents != "off",
        "ss_tag_frequency": json.dumps(tag_frequency(plan.pictures), ensure_ascii=False),
        "ss_dataset_dirs": json.dumps(dataset_dirs(plan.pictures), ensure_ascii=False),
        "ss_reg_dataset_dirs": json.dumps(dataset_dirs(plan.pictures, regularisation=True), ensure_ascii=False),
        "ss_bucket_info": json.dumps(bucket_info(plan.pictures, plan.placements)),
        "ss_training_started_at": run.record.started_at,
        "ss_training_finished_at": time.time(),
        "ss_training_comment": config.comment or "None",
    }


def _flow_facts(run: Run) -> dict[str, Any]:
    """What sd-scripts records of Flux's trainings alone; what cannot be chosen here stands there as it is computed."""
    config = run.plan.config
    if run.plan.base.family != "flux":
        return {}
    return {
        "ss_model_type": "flux",
        "ss_apply_t5_attn_mask": config.t5_mask,
        "ss_guidance_scale": config.guidance,
        "ss_timestep_sampling": config.timestep_sampling,
        "ss_sigmoid_scale": 1.0,
        "ss_discrete_flow_shift": config.flow_shift,
        "ss_model_prediction_type": "raw",
        "ss_weighting_scheme": "none",
    }


def _model_spec(run: Run) -> dict[str, str]:
    """https://github.com/Stability-AI/ModelSpec, version 1.0.0."""
    plan, config = run.plan, run.plan.config
    width, height = filled(config.resolution)
    spec = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURES[plan.base.family].format(variant=plan.base.variant),
        "modelspec.implementation": IMPLEMENTATIONS.get(plan.base.family, "diffusers"),
        "modelspec.title": run.outputs.name,
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
        "modelspec.resolution": f"{width}x{height}",
        # ModelSpec has no word for what Flux predicts.
        **({} if plan.prediction_type == "flow" else {"modelspec.prediction_type": plan.prediction_type}),
        "lora_trainer.version": __version__,
    }
    return spec | ({"modelspec.trigger_phrase": config.trigger_word} if config.trigger_word else {})

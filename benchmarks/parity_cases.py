"""The parity benchmark's cases, and where ours differs from sd-scripts on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PROJECTION = "conditioner.embedders.1.model.text_projection"


@dataclass(frozen=True)
class Case:
    """Changes to our config, as `--set` takes them; `pictures` names a folder of `sample_pictures.FOLDERS`.

    `symmetric` is explained at `make_small_base`. `why`: a difference on purpose that the plan does not show.
    """

    family: str
    changes: str = ""
    pictures: str = "fitting"
    symmetric: bool = True
    why: str = ""


@dataclass(frozen=True)
class Difference:
    """A difference on purpose: why, and in which plans it shows."""

    why: str
    shows: Callable[[Any], bool]


def explanation(plan: Any) -> str:
    """Why this plan's results may differ, in one line; empty where they should not."""
    return "; ".join(each.why for each in DIFFERENCES if each.shows(plan))


def _weighs_by_snr(config: Any) -> bool:
    return bool(
        config.min_snr_gamma or config.scale_v_pred_loss or config.v_pred_like_loss or config.debiased_estimation
    )


def _turned_projection(plan: Any) -> bool:
    """Whether the base has a text projection in open_clip's layout that differs from its transpose."""
    if plan.base.family != "sdxl" or plan.base.layout != "original":
        return False
    from lora_trainer.inspecting.header import read_header
    from lora_trainer.training.families.tensors import read_tensors

    tensors = read_header(plan.base.path).tensors
    ((_, matrix),) = read_tensors({PROJECTION: tensors[PROJECTION]})
    return not bool((matrix == matrix.t()).all())


DIFFERENCES = (
    Difference(
        "the pooled text goes through the base's projection; sd-scripts multiplies by its transpose",
        _turned_projection,
    ),
    Difference(
        "weights by SNR follow the zero-terminal schedule; sd-scripts takes the SNR of the one before it was rescaled",
        lambda plan: plan.zero_terminal_snr and _weighs_by_snr(plan.config),
    ),
    Difference(
        "an epoch's last step is the mean of the batches left for it; sd-scripts divides by gradient_accumulation",
        lambda plan: plan.batches_per_epoch % plan.config.gradient_accumulation > 0,
    ),
    Difference(
        "captions are dropped from an epoch's first batch on; sd-scripts hears of the new epoch after it",
        lambda plan: plan.config.caption_dropout_every_n_epochs > 0,
    ),
    Difference(
        "each text encoder has its own rate; sd-scripts' LoRA has one for both",
        lambda plan: isinstance(plan.config.text_encoder_lr, tuple) and len(set(plan.config.text_encoder_lr)) > 1,
    ),
    Difference(
        "what is transparent is white; sd-scripts shows the colours that lie hidden there",
        lambda plan: plan.config.masked_loss == "alpha",
    ),
    Difference(
        "dropout leaves out as many values, but others: convolutions' lie in memory in another order here",
        lambda plan: plan.config.dropout > 0 and plan.base.family != "flux",
    ),
    Difference(
        "a resized picture's values are rounded by one level otherwise, up to 8 in 100,000",
        lambda plan: any(
            tuple(placement.resized) != tuple(picture.size)
            for picture, placement in zip(plan.pictures, plan.placements)
        ),
    ),
    Difference(
        "noise levels keep to the range of timesteps; sd-scripts' Flux leaves it unread",
        lambda plan: plan.base.family == "flux" and (plan.config.min_timestep > 0 or plan.config.max_timestep < 1000),
    ),
    Difference(
        "crops and colours are drawn otherwise, and nothing is injected for them",
        lambda plan: plan.config.random_crop or plan.config.colour_jitter,
    ),
)


SNR = "min_snr_gamma=5"
V = "prediction_type=v"
ZERO = f"{V} zero_terminal_snr=on"
LR_WEIGHTS = "block_wise=true block_lr_weights=" + ",".join(f"{0.1 * (1 + i % 9):.1f}" for i in range(25))
RANKS = "block_wise=true block_ranks=" + ",".join(str(2 + i % 3) for i in range(25))
ALPHAS = "block_alphas=" + ",".join(str(1 + i % 2) for i in range(25))
XL_LR_WEIGHTS = "block_wise=true block_lr_weights=" + ",".join(f"{0.1 * (i % 9):.1f}" for i in range(21))
XL_RANKS = "block_wise=true block_ranks=" + ",".join(str(2 + i % 3) for i in range(21))

FIXED_STEPS = """'["relative_step=False", "scale_parameter=False", "warmup_init=False"]'"""

CASES: dict[str, Case] = {
    "sd15-adamw": Case("sd15"),
    "sd15-unet-only": Case("sd15", "train=unet"),
    "sd15-text-encoder-only": Case("sd15", "train=text_encoder"),
    "sd15-text-encoder-rate": Case("sd15", "text_encoder_lr=2e-4 unet_lr=5e-4"),
    "sd15-cosine-warm-up": Case("sd15", "schedule=cosine warmup_percent=20"),
    "sd15-linear-warm-up": Case("sd15", "schedule=linear warmup_percent=20"),
    "sd15-restarts-warm-up": Case("sd15", "schedule=cosine_with_restarts restarts=3 warmup_percent=20"),
    "sd15-constant-warm-up": Case("sd15", "schedule=constant_with_warmup warmup_percent=20"),
    "sd15-polynomial": Case("sd15", "schedule=polynomial power=2 warmup_percent=10"),
    "sd15-min-snr": Case("sd15", SNR),
    "sd15-noise-offset": Case("sd15", "noise_offset=0.1"),
    "sd15-noise-offset-random": Case(
        "sd15", "noise_offset=0.1 noise_offset_random_strength=true adaptive_noise_scale=0.1"
    ),
    "sd15-multires": Case("sd15", "multires_iterations=6 multires_discount=0.3"),
    "sd15-input-perturbation": Case("sd15", "input_perturbation=0.1"),
    "sd15-v": Case("sd15", V),
    "sd15-v-min-snr": Case("sd15", f"{V} {SNR}"),
    "sd15-v-scaled": Case("sd15", f"{V} scale_v_pred_loss=true"),
    "sd15-v-debiased": Case("sd15", f"{V} debiased_estimation=true"),
    "sd15-zero-snr": Case("sd15", ZERO),
    "sd15-zero-snr-min-snr": Case("sd15", f"{ZERO} {SNR}"),
    "sd15-debiased": Case("sd15", "debiased_estimation=true"),
    "sd15-v-like": Case("sd15", "v_pred_like_loss=0.5"),
    "sd15-huber": Case("sd15", "loss=huber huber_schedule=snr"),
    "sd15-huber-exponential": Case("sd15", "loss=huber huber_schedule=exponential"),
    "sd15-smooth-l1": Case("sd15", "loss=smooth_l1 huber_schedule=constant"),
    "sd15-timestep-range": Case("sd15", "min_timestep=200 max_timestep=700"),
    "sd15-shuffle-keep": Case("sd15", "shuffle_tags=true keep_tokens=2"),
    "sd15-tag-dropout": Case("sd15", "shuffle_tags=true keep_tokens=1 tag_dropout=0.3 caption_dropout=0.2"),
    "sd15-no-captions-each-2nd-epoch": Case("sd15", "caption_dropout_every_n_epochs=2"),
    "sd15-prefix-suffix": Case("sd15", "shuffle_tags=true keep_tokens=1 caption_prefix=sks, caption_suffix=,photo"),
    "sd15-weighted-captions": Case("sd15", "weighted_captions=true", "weighted"),
    "sd15-225-tokens": Case("sd15", "max_token_length=225", "wordy"),
    "sd15-clip-skip": Case("sd15", "clip_skip=2"),
    "sd15-block-lr-weights": Case("sd15", LR_WEIGHTS),
    "sd15-block-lr-shape": Case("sd15", "block_wise=true block_lr_weights=cosine+0.25"),
    "sd15-block-ranks": Case("sd15", RANKS),
    "sd15-block-ranks-alphas": Case("sd15", f"{RANKS} {ALPHAS}"),
    "sd15-resized": Case("sd15", "", "others"),
    "sd15-no-buckets": Case("sd15", "buckets=false", "others"),
    "sd15-no-upscale": Case("sd15", "bucket_no_upscale=true", "others"),
    "sd15-batch-2": Case("sd15", "batch_size=2"),
    "sd15-accumulation": Case("sd15", "gradient_accumulation=2"),
    "sd15-accumulation-uneven": Case("sd15", "gradient_accumulation=4"),
    "sd15-no-cache": Case("sd15", "cache_latents=off flip=true batch_size=2"),
    "sd15-flip": Case("sd15", "flip=true"),
    "sd15-locon": Case("sd15", "kind=LoCon conv_rank=3 conv_alpha=2"),
    "sd15-weight-norms": Case("sd15", "scale_weight_norms=0.3"),
    "sd15-rank-module-dropout": Case("sd15", "rank_dropout=0.1 module_dropout=0.1"),
    "sd15-network-dropout": Case("sd15", "dropout=0.1"),
    "sd15-no-clipping": Case("sd15", "gradient_clipping=0"),
    "sd15-checkpointing": Case("sd15", "gradient_checkpointing=on"),
    "sd15-adafactor": Case("sd15", f"optimizer=Adafactor optimizer_args={FIXED_STEPS}"),
    "sd15-adafactor-relative": Case("sd15", "optimizer=Adafactor schedule=constant"),
    "sd15-lion": Case("sd15", "optimizer=Lion learning_rate=1e-4"),
    "sd15-prodigy": Case("sd15", "optimizer=Prodigy learning_rate=1"),
    "sd15-masked": Case("sd15", "masked_loss=alpha", "see-through"),
    "sdxl-adamw": Case("sdxl"),
    "sdxl-text-projection": Case("sdxl", symmetric=False),
    "sdxl-cosine-warm-up": Case("sdxl", "schedule=cosine warmup_percent=20"),
    "sdxl-linear-warm-up": Case("sdxl", "schedule=linear warmup_percent=20"),
    "sdxl-restarts-warm-up": Case("sdxl", "schedule=cosine_with_restarts restarts=2 warmup_percent=10"),
    "sdxl-min-snr": Case("sdxl", SNR),
    "sdxl-noise-offset": Case("sdxl", "noise_offset=0.0357"),
    "sdxl-multires": Case("sdxl", "multires_iterations=6 multires_discount=0.3"),
    "sdxl-v": Case("sdxl", V),
    "sdxl-zero-snr": Case("sdxl", ZERO),
    "sdxl-zero-snr-min-snr": Case("sdxl", f"{ZERO} {SNR}"),
    "sdxl-zero-snr-scaled": Case("sdxl", f"{ZERO} scale_v_pred_loss=true"),
    "sdxl-shuffle-keep": Case("sdxl", "shuffle_tags=true keep_tokens=1"),
    "sdxl-225-tokens": Case("sdxl", "max_token_length=225", "wordy"),
    "sdxl-text-encoders": Case("sdxl", "train=both text_encoder_lr=3e-4"),
    "sdxl-text-encoder-rates": Case("sdxl", "train=both text_encoder_lr=3e-4,1e-4 unet_lr=5e-4"),
    "sdxl-block-lr-weights": Case("sdxl", XL_LR_WEIGHTS),
    "sdxl-block-ranks": Case("sdxl", XL_RANKS),
    "sdxl-resized": Case("sdxl", "", "others"),
    "sdxl-flip-batch-2": Case("sdxl", "flip=true batch_size=2", "others"),
    "sdxl-locon": Case("sdxl", "kind=LoCon conv_rank=2"),
}

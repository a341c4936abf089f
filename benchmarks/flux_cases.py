"""The cases of the parity benchmark for Flux: what sd-scripts' script for it knows, each against its defaults."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.parity_cases import FIXED_STEPS, Case


@dataclass(frozen=True)
class FluxCase(Case):
    """`base`: a name of `flux_base.BASES`."""

    family: str = "flux"
    base: str = "dev"


GELU = "CLIP-L computes with quick_gelu, as it was trained; sd-scripts' Flux with gelu"


CASES: dict[str, FluxCase] = {
    "real": FluxCase(base="real"),
    "real-clip-l-mask": FluxCase(
        changes="train=both text_encoder_lr=3e-4 t5_mask=true t5_length=256 timestep_sampling=flux_shift", base="real"
    ),
    "dev": FluxCase(),
    "schnell": FluxCase(base="schnell"),
    "clip-l-activation": FluxCase(base="gelu", why=GELU),
    "sigma": FluxCase(changes="timestep_sampling=sigma"),
    "uniform": FluxCase(changes="timestep_sampling=uniform"),
    "sigmoid": FluxCase(changes="timestep_sampling=sigmoid"),
    "flux-shift": FluxCase(changes="timestep_sampling=flux_shift"),
    "shift-1.15": FluxCase(changes="flow_shift=1.15"),
    "guidance": FluxCase(changes="guidance=3.5"),
    "t5-256": FluxCase(changes="t5_length=256"),
    "t5-mask": FluxCase(changes="t5_mask=true"),
    "wordy": FluxCase(changes="t5_length=256", pictures="wordy"),
    "clip-l": FluxCase(changes="train=both"),
    "clip-l-mask": FluxCase(changes="train=both t5_mask=true text_encoder_lr=2e-4 unet_lr=5e-4"),
    "clip-l-varied": FluxCase(changes="train=both shuffle_tags=true keep_tokens=1 caption_dropout=0.2 cache_text=off"),
    "clip-l-only": FluxCase(changes="train=text_encoder"),
    "one-double-block": FluxCase(changes="double_blocks=0 single_blocks=none"),
    "one-single-block": FluxCase(changes="double_blocks=none single_blocks=1"),
    "huber": FluxCase(changes="loss=huber huber_schedule=exponential"),
    "smooth-l1": FluxCase(changes="loss=smooth_l1 huber_schedule=constant"),
    "input-perturbation": FluxCase(changes="input_perturbation=0.1"),
    "varied": FluxCase(changes="shuffle_tags=true keep_tokens=1 tag_dropout=0.3 caption_dropout=0.2 cache_text=off"),
    "cosine-warm-up": FluxCase(changes="schedule=cosine warmup_percent=20"),
    "batch-2": FluxCase(changes="batch_size=2"),
    "accumulation": FluxCase(changes="gradient_accumulation=2"),
    "no-cache": FluxCase(changes="cache_latents=off cache_text=off flip=true batch_size=2"),
    "resized": FluxCase(pictures="others"),
    "masked": FluxCase(changes="masked_loss=alpha", pictures="see-through"),
    "dropout": FluxCase(changes="dropout=0.1"),
    "rank-module-dropout": FluxCase(changes="rank_dropout=0.1 module_dropout=0.1"),
    "checkpointing": FluxCase(changes="gradient_checkpointing=on"),
    "adafactor": FluxCase(changes=f"optimizer=Adafactor optimizer_args={FIXED_STEPS}"),
    "prodigy": FluxCase(changes="optimizer=Prodigy learning_rate=1"),
}

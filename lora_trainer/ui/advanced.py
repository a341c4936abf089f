"""Every other setting, folded, in the order of the guide's advanced settings."""

from __future__ import annotations

import gradio as gr

from lora_trainer.ui.widgets import Widgets, folded

# Title -> rows of settings that stand side by side.
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "Training": (
        ("gradient_accumulation", "micro_batch", "max_steps"),
        ("mixed_precision", "base_precision"),
        ("gradient_checkpointing", "attention", "compile"),
        ("swap_blocks", "gradient_clipping"),
        ("savings",),
    ),
    "Sample pictures": (
        ("negative_prompt",),
        ("preview_size", "preview_steps", "preview_seed"),
        ("preview_sampler", "preview_cfg", "preview_guidance"),
        ("preview_every_epochs", "preview_at_start"),
    ),
    "Saving": (
        ("save_every_epochs", "save_precision"),
        ("save_every_steps", "keep_last", "save_state"),
        ("output_folder", "overwrite", "comment"),
    ),
    "Learning rate and optimizer": (
        ("learning_rate", "unet_lr", "text_encoder_lr"),
        ("warmup_percent", "schedule"),
        ("optimizer", "optimizer_args"),
        ("restarts", "power"),
        ("train", "min_snr_gamma"),
        ("loss", "huber_schedule", "huber_c"),
        ("debiased_estimation", "v_pred_like_loss", "scale_v_pred_loss", "scale_weight_norms"),
    ),
    "Network": (
        ("kind", "rank", "alpha"),
        ("conv_rank", "conv_alpha", "lokr_factor"),
        ("double_blocks", "single_blocks"),
        ("block_wise",),
        ("block_lr_weights", "block_ranks", "block_alphas"),
        ("dropout", "rank_dropout", "module_dropout"),
        ("start_lora",),
    ),
    "Captions in training": (
        ("shuffle_tags", "weighted_captions", "keep_tokens", "max_token_length"),
        ("caption_dropout", "tag_dropout", "caption_dropout_every_n_epochs"),
        ("caption_prefix", "caption_suffix", "caption_extension"),
        ("excluded_tags", "tag_underscores"),
        ("t5_length", "t5_mask"),
    ),
    "Noise and timesteps": (
        ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale"),
        ("multires_iterations", "multires_discount", "input_perturbation"),
        ("min_timestep", "max_timestep"),
        ("timestep_sampling", "flow_shift", "guidance"),
    ),
    "Pictures in training": (
        ("resolution", "buckets", "bucket_no_upscale"),
        ("min_bucket", "max_bucket", "bucket_step"),
        ("flip", "colour_jitter", "random_crop"),
        ("masked_loss", "mask_folder", "prior_loss_weight"),
        ("cache_latents", "cache_text"),
    ),
    "Seed and base model": (
        ("seed", "clip_skip"),
        ("family", "prediction_type", "zero_terminal_snr"),
        ("vae",),
    ),
}


def panel(widgets: Widgets) -> None:
    gr.Markdown("### Advanced", elem_id="lora_trainer_advanced")
    for number, (title, rows) in enumerate(GROUPS.items(), 1):
        with folded(title, f"advanced_{number}"):
            for names in rows:
                widgets.settings(*names)

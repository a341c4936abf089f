"""Every setting of a training run, each defined once: read this table first.

A row reads ``name: type = panel(default, label, help, facts...)``; ``Setting`` explains the facts. A default of None
stands for: empty, the base model family's own, or automatic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from lora_trainer.config.setting import Applies, Setting, setting, settings_of

PANELS = {
    "model": "Base model",
    "dataset": "Pictures and captions",
    "training": "Training",
    "learning": "Learning rate and optimizer",
    "network": "Network",
    "noise": "Noise and timesteps",
    "saving": "Saving",
    "previews": "Previews",
}
model, dataset, training, learning, network, noise, saving, previews = (partial(setting, panel) for panel in PANELS)
subset = partial(setting, "dataset")

FAMILIES = ("sd15", "sd2", "sdxl", "flux")
RATE_FREE_OPTIMIZERS = ("DAdaptation", "DAdaptAdam", "Prodigy", "ProdigyPlusScheduleFree")
WD_TAGGERS = (
    "wd-v3", "wd-vit-v3", "wd-convnext-v3", "wd-vit-large-v3", "wd-eva02-large-v3", "wd-moat-v2", "wd-swinv2-v2",
    "wd-convnext-v2", "wd-convnextv2-v2", "wd-vit-v2",
)  # fmt: skip
TAG_TAGGERS = (*WD_TAGGERS, "deepdanbooru")
SAVINGS = ("checkpointing", "micro_batch", "cached_text", "swap", "optimizer_8bit", "fp8")
BLOCK_SHAPES = ("flat", "cosine", "sine", "linear", "reverse")

WITH_TAGS = Applies("Used only by taggers that give tags.", lambda config: config.tagger in TAG_TAGGERS)
ONLY_FLUX = Applies("Used for Flux only.", lambda config: config.family in ("auto", "flux"))
NOT_FLUX = Applies("Flux does not use it.", lambda config: config.family != "flux")
OTHER_VAE = Applies("Not for Flux, whose autoencoder is a setting of its own.", NOT_FLUX.test)
OTHER_ATTENTION = Applies("For Flux it is always torch's own.", NOT_FLUX.test)
CLIP_SKIPS = Applies("SDXL and Flux ignore it.", lambda config: config.family not in ("sdxl", "flux"))
WITH_BUCKETS = Applies("Used only when buckets are on.", lambda config: config.buckets)
WITH_CONVOLUTIONS = Applies(
    "The kind LoRA trains no 3x3 convolutions, and Flux has none.",
    lambda config: config.kind != "LoRA" and config.family != "flux",
)
WITH_BLOCKS = Applies("Used only when block-wise training is on.", lambda config: config.block_wise)
WITH_HUBER = Applies('Used only when the loss is "huber" or "smooth_l1".', lambda config: config.loss != "l2")
WITH_OFFSET = Applies(
    "Used only when the noise offset is above 0, and not for Flux.",
    lambda config: config.noise_offset > 0 and config.family != "flux",
)
WITH_PREVIEWS = Applies(
    "Used only when previews are made.", lambda config: config.preview_every_epochs > 0 or config.preview_at_start
)
WITH_CFG = Applies(
    "Used only when previews are made, and not for Flux.",
    lambda config: WITH_PREVIEWS.test(config) and NOT_FLUX.test(config),
)
WITH_GUIDANCE = Applies(
    "Used only when previews are made, and for Flux only.",
    lambda config: WITH_PREVIEWS.test(config) and ONLY_FLUX.test(config),
)
WITH_SHIFT = Applies(
    "Used only for Flux, by the samplings shift and sigma.",
    lambda config: ONLY_FLUX.test(config) and config.timestep_sampling in ("shift", "sigma"),
)

# fmt: off


@dataclass(frozen=True)
class Subset:
    """One folder of pictures. None means: as the whole dataset has it."""

    folder: str = subset(
        "", "Folder", "The folder that holds the pictures and their captions.",
        required=True, path=True, kohya="image_dir")
    repeats: int | None = subset(
        None, "Repeats", "How often each picture of this folder is seen in one epoch.",
        minimum=1, maximum=10000, unit="times", kohya="num_repeats")
    class_tokens: str = subset(
        "", "Class tokens", "The caption of pictures that have no caption file.", kohya="class_tokens")
    is_regularisation: bool = subset(
        False, "Regularisation pictures", "These pictures only remind the model of what it knows already.",
        kohya="is_reg")
    caption_extension: str | None = subset(
        None, "Caption file ending", "How the names of the caption files end.",
        choices=(".txt", ".caption"), kohya="caption_extension")
    shuffle_tags: bool | None = subset(
        None, "Shuffle tags", "Put the tags of a caption in a fresh order each time.", kohya="shuffle_caption")
    keep_tokens: int | None = subset(
        None, "Keep first tags", "How many tags at the start of a caption stay where they are.",
        minimum=0, maximum=255, unit="tags", kohya="keep_tokens")
    caption_prefix: str | None = subset(
        None, "Prefix", "Text put before every caption of this folder.", kohya="caption_prefix")
    caption_suffix: str | None = subset(
        None, "Suffix", "Text put after every caption of this folder.", kohya="caption_suffix")
    flip: bool | None = subset(
        None, "Flip", "Show the pictures mirrored half of the time.", kohya="flip_aug")
    caption_dropout: float | None = subset(
        None, "Caption dropout", "How often a picture is shown without its caption.",
        minimum=0, maximum=1, kohya="caption_dropout_rate")
    tag_dropout: float | None = subset(
        None, "Tag dropout", "How often each tag is left out.",
        minimum=0, maximum=1, kohya="caption_tag_dropout_rate")


@dataclass(frozen=True)
class Config:
    """One training run. ``problems(config)`` says what is wrong with it; making one checks nothing."""

    # ---- base model

    family: str = model(
        "auto", "Base model family", "Which kind of model the base is; auto reads it from the file itself.",
        choices=("auto", *FAMILIES), kohya="v2")
    base_model: str = model(
        "", "Base model", "The checkpoint to train on. The LoRA will suit this model and its relatives best.",
        required=True, path=True, seaart="基本モデル", kohya="pretrained_model_name_or_path",
        metadata="ss_sd_model_name")
    vae: str | None = model(
        None, "VAE", "Another VAE than the checkpoint's own. Leave empty unless the checkpoint's is broken.",
        path=True, kohya="vae", metadata="ss_vae_name", applies=OTHER_VAE)
    clip_l: str | None = model(
        None, "CLIP-L", "The file of Flux's first text encoder; empty looks in the usual folders.",
        path=True, kohya="clip_l", applies=ONLY_FLUX)
    t5xxl: str | None = model(
        None, "T5-XXL", "The file of Flux's second text encoder; empty looks in the usual folders.",
        path=True, kohya="t5xxl", applies=ONLY_FLUX)
    ae: str | None = model(
        None, "Autoencoder", "The file of Flux's autoencoder; empty looks in the usual folders.",
        path=True, kohya="ae", applies=ONLY_FLUX)
    t5_tokenizer: str | None = model(
        None, "T5 tokenizer", "The file tokenizer.json that splits captions for T5-XXL; empty takes the WebUI's own, "
        "or one beside the T5-XXL file.",
        path=True, applies=ONLY_FLUX)
    prediction_type: str = model(
        "auto", "Prediction type", "What the base model predicts: the noise (epsilon) or the velocity (v). "
        "Auto reads it from the file; a wrong choice gives a LoRA that ruins pictures.",
        choices=("auto", "epsilon", "v"), kohya="v_parameterization", applies=NOT_FLUX)
    zero_terminal_snr: str = model(
        "auto", "Zero terminal SNR", "Whether the base model was trained to start from pure noise. "
        "Auto reads it from the file.",
        choices=("auto", "on", "off"), kohya="zero_terminal_snr", metadata="ss_zero_terminal_snr", applies=NOT_FLUX)
    clip_skip: int | None = model(
        None, "Clip skip", "Which of the text encoder's last layers is used. Use what the base model was made with: "
        "1 for most, 2 for most SD1.5 anime models.",
        minimum=1, maximum=12, unit="layers", family_defaults={"sd15": 1, "sd2": 1, "sdxl": 1, "flux": 1},
        seaart="clip スキップ", kohya="clip_skip", metadata="ss_clip_skip", applies=CLIP_SKIPS)

    # ---- pictures and captions

    dataset_name: str = dataset(
        "", "Dataset name", "A name for this set of pictures. The LoRA gets it too, unless named otherwise.",
        seaart="データセット名")
    subsets: tuple[Subset, ...] = dataset(
        (), "Folders", "The folders of pictures to learn from, each with settings of its own.",
        required=True, kohya="train_data_dir reg_data_dir", metadata="ss_dataset_dirs")
    repeats: int = dataset(
        10, "Repeats", "How often each picture is seen in one epoch.",
        minimum=1, maximum=10000, unit="times", seaart="リピート数", kohya="num_repeats")
    epochs: int = dataset(
        10, "Epochs", "How often the whole set, repeats included, is gone through.",
        minimum=1, maximum=10000, unit="epochs", seaart="エポック数", kohya="max_train_epochs",
        metadata="ss_num_epochs")
    max_steps: int = dataset(
        0, "Steps", "Train for this many steps, however many epochs that makes. 0 goes by the epochs.",
        minimum=0, maximum=10_000_000, unit="steps", kohya="max_train_steps", metadata="ss_max_train_steps")
    crop: str = dataset(
        "none", "Crop", "Cut pictures before training: not at all, around the centre, or around the face or subject.",
        choices=("none", "centre", "focus"), seaart="切り抜き方式")
    crop_size: tuple[int, int] | None = dataset(
        None, "Crop size", "Width and height of the cut. Empty uses the training resolution.",
        minimum=64, maximum=4096, multiple_of=8, unit="pixels", derived=lambda config: config.resolution,
        seaart="切り抜きサイズ", applies=Applies("Used only when pictures are cropped.", lambda c: c.crop != "none"))
    background: str = dataset(
        "white", "Background", "The colour behind transparent pictures. Keep leaves them transparent, for masked loss.",
        choices=("white", "grey", "black", "keep"))
    resolution: tuple[int, int] | None = dataset(
        None, "Resolution", "Width and height to train at. Empty uses what the base model was made for.",
        minimum=64, maximum=4096, multiple_of=8, unit="pixels",
        family_defaults={"sd15": (512, 512), "sd2": (768, 768), "sdxl": (1024, 1024), "flux": (1024, 1024)},
        kohya="resolution", metadata="ss_resolution")
    buckets: bool = dataset(
        True, "Buckets", "Keep each picture's shape by grouping pictures of like shape, instead of cutting all "
        "to one shape.",
        kohya="enable_bucket", metadata="ss_enable_bucket")
    min_bucket: int = dataset(
        256, "Shortest bucket side", "No group's side is shorter than this.",
        minimum=64, maximum=4096, unit="pixels", kohya="min_bucket_reso", metadata="ss_min_bucket_reso",
        applies=WITH_BUCKETS)
    max_bucket: int | None = dataset(
        None, "Longest bucket side", "No group's side is longer than this. Empty uses the family's own.",
        minimum=64, maximum=8192, unit="pixels",
        family_defaults={"sd15": 1024, "sd2": 1536, "sdxl": 2048, "flux": 2048},
        kohya="max_bucket_reso", metadata="ss_max_bucket_reso", applies=WITH_BUCKETS)
    bucket_step: int = dataset(
        64, "Bucket step", "Sides of groups are multiples of this.",
        minimum=8, maximum=1024, multiple_of=8, unit="pixels", kohya="bucket_reso_steps", applies=WITH_BUCKETS)
    bucket_no_upscale: bool = dataset(
        False, "Never enlarge", "Keep small pictures at their own size instead of enlarging them.",
        kohya="bucket_no_upscale", metadata="ss_bucket_no_upscale", applies=WITH_BUCKETS)
    tagger: str = dataset(
        "wd-v3", "Tagger", "What describes your pictures: tags from a WD14 model or DeepDanbooru, or sentences from "
        "BLIP or Florence-2. wd-v3 is the one to begin with.",
        choices=("none", *TAG_TAGGERS, "blip", "florence-2"), seaart="タグ付けアルゴリズム")
    tag_threshold: float = dataset(
        0.35, "Tag threshold", "How sure the tagger must be of a tag. Lower gives more tags, and more wrong ones.",
        minimum=0, maximum=1, slider_step=0.01, seaart="タグ付け閾値", applies=WITH_TAGS)
    character_threshold: float = dataset(
        0.85, "Character tag threshold", "How sure the tagger must be of a known character's name.",
        minimum=0, maximum=1, slider_step=0.01,
        applies=Applies("Used only by the WD14 taggers.", lambda config: config.tagger in WD_TAGGERS))
    excluded_tags: tuple[str, ...] = dataset(
        (), "Excluded tags", "Tags that the tagger never gives.", applies=WITH_TAGS)
    tag_underscores: bool = dataset(
        False, "Underscores", "Write tags as green_hair instead of green hair.", applies=WITH_TAGS)
    trigger_word: str = dataset(
        "", "Trigger word", "The word that will call up what was learned. It goes first in every caption.",
        seaart="トリガーワード")
    existing_captions: str = dataset(
        "keep", "Existing captions", "What the tagger does with captions that are there already.",
        choices=("keep", "append", "prepend", "replace"))
    caption_extension: str = dataset(
        ".txt", "Caption file ending", "How the names of the caption files end.",
        choices=(".txt", ".caption"), kohya="caption_extension")
    shuffle_tags: bool | None = dataset(
        None, "Shuffle tags", "Put the tags of a caption in a fresh order each time, so that each is learned by "
        "itself. Automatic does so for tags but not for sentences, and not for Flux, whose T5 then reads each once.",
        family_defaults={"flux": False},
        seaart="各タグをシャッフル", kohya="shuffle_caption", metadata="ss_shuffle_caption")
    keep_tokens: int | None = dataset(
        None, "Keep first tags", "How many tags at the start of a caption are neither moved nor dropped. "
        "Empty keeps the trigger word.",
        minimum=0, maximum=255, unit="tags", derived=lambda config: 1 if config.trigger_word else 0,
        seaart="N個のトークンを保持", kohya="keep_tokens", metadata="ss_keep_tokens")
    weighted_captions: bool = dataset(
        False, "Weighted captions", "Read weights such as (black hair:1.2) in captions.",
        seaart="重み付きのトークン使用", kohya="weighted_captions", applies=NOT_FLUX)
    max_token_length: int = dataset(
        75, "Longest caption", "What is longer than this is cut off.",
        choices=(75, 150, 225), unit="tokens", seaart="最大トークン長", kohya="max_token_length",
        metadata="ss_max_token_length", applies=NOT_FLUX)
    t5_length: int | None = dataset(
        None, "Longest caption for T5", "What is longer than this is cut off, and what is shorter is filled up. "
        "Automatic is 512 for FLUX.1 dev and 256 for schnell.",
        choices=(256, 512), unit="tokens", kohya="t5xxl_max_token_length", applies=ONLY_FLUX)
    t5_mask: bool = dataset(
        False, "Hide T5's padding", "Let the model see only what a caption says, not what fills it up. FLUX.1 dev and "
        "schnell were made to see both.",
        kohya="apply_t5_attn_mask", applies=ONLY_FLUX)
    caption_dropout: float = dataset(
        0.0, "Caption dropout", "How often a picture is shown without its caption. A little helps styles.",
        minimum=0, maximum=1, kohya="caption_dropout_rate", metadata="ss_caption_dropout_rate")
    tag_dropout: float = dataset(
        0.0, "Tag dropout", "How often each tag is left out of a caption.",
        minimum=0, maximum=1, kohya="caption_tag_dropout_rate", metadata="ss_caption_tag_dropout_rate")
    caption_dropout_every_n_epochs: int = dataset(
        0, "Drop all captions every N epochs", "Show a whole epoch without captions every so many. 0 is never.",
        minimum=0, maximum=10000, unit="epochs", kohya="caption_dropout_every_n_epochs",
        metadata="ss_caption_dropout_every_n_epochs")
    caption_prefix: str = dataset(
        "", "Prefix", "Text put before every caption.", kohya="caption_prefix")
    caption_suffix: str = dataset(
        "", "Suffix", "Text put after every caption.", kohya="caption_suffix")
    flip: bool = dataset(
        False, "Flip", "Show pictures mirrored half of the time. Not for faces or clothes that differ left and right.",
        kohya="flip_aug", metadata="ss_flip_aug")
    colour_jitter: bool = dataset(
        False, "Vary colours", "Change the colours a little each time. Needs latents that are not cached.",
        kohya="color_aug", metadata="ss_color_aug")
    random_crop: bool = dataset(
        False, "Random crop", "Cut at another place each time. Needs latents that are not cached.",
        kohya="random_crop", metadata="ss_random_crop")
    masked_loss: str = dataset(
        "off", "Masked loss", "Learn only from a part of each picture, marked by its transparency or by mask pictures.",
        choices=("off", "alpha", "folder"), kohya="masked_loss alpha_mask")
    mask_folder: str | None = dataset(
        None, "Mask folder", "Pictures named like yours, white where there is something to learn.",
        path=True, kohya="conditioning_data_dir",
        applies=Applies('Used only when masked loss is "folder".', lambda config: config.masked_loss == "folder"))
    prior_loss_weight: float = dataset(
        1.0, "Weight of regularisation pictures", "How much regularisation pictures count next to your own.",
        minimum=0, maximum=10, kohya="prior_loss_weight", metadata="ss_prior_loss_weight",
        applies=Applies("Used only with regularisation pictures.",
                        lambda config: any(part.is_regularisation for part in config.subsets)))
    cache_latents: str = dataset(
        "memory", "Cache latents", "Encode every picture once and keep the result: faster, and lighter on the GPU.",
        choices=("off", "memory", "disk"), kohya="cache_latents cache_latents_to_disk", metadata="ss_cache_latents")
    cache_text: str = dataset(
        "auto", "Cache text", "Encode every caption once and keep the result. Auto does so when captions stay the "
        "same and the text encoder is not trained.",
        choices=("auto", "off", "memory", "disk"),
        kohya="cache_text_encoder_outputs cache_text_encoder_outputs_to_disk")

    # ---- training

    batch_size: int = training(
        2, "Batch size", "How many pictures are learned from at once. More is steadier but needs more memory.",
        minimum=1, maximum=256, unit="pictures", seaart="バッチサイズ", kohya="train_batch_size",
        metadata="ss_batch_size_per_device")
    gradient_accumulation: int = training(
        1, "Gradient accumulation", "Batches gathered into one step: like a larger batch, without the memory.",
        minimum=1, maximum=1024, unit="batches", kohya="gradient_accumulation_steps",
        metadata="ss_gradient_accumulation_steps")
    micro_batch: int = training(
        0, "Pictures at once", "How many of a batch's pictures are computed at the same time: fewer need less memory, "
        "and the step is still that of the whole batch. 0 is all of them.",
        minimum=0, maximum=256, unit="pictures")
    mixed_precision: str = training(
        "auto", "Mixed precision", "How exactly to compute. Auto takes bf16 where the device has it, else fp16, "
        "and none on a CPU.",
        choices=("auto", "no", "fp16", "bf16"), seaart="混合精度", kohya="mixed_precision",
        metadata="ss_mixed_precision")
    base_precision: str = training(
        "auto", "Base model's precision", "How exactly the base model's own weights are held. Less needs less memory.",
        choices=("auto", "fp32", "fp16", "bf16", "fp8", "int8", "nf4"),
        kohya="full_fp16 full_bf16 fp8_base fp8_base_unet")
    gradient_checkpointing: str = training(
        "auto", "Gradient checkpointing", "Needs much less memory and about a quarter more time. "
        "Auto uses it when memory is short.",
        choices=("auto", "on", "off"), kohya="gradient_checkpointing", metadata="ss_gradient_checkpointing")
    swap_blocks: int = training(
        0, "Blocks in host memory", "How much of the base model waits in the computer's own memory until it is needed: "
        "this many single blocks and half as many double ones. Less GPU memory, slower steps; 0 keeps all on the GPU.",
        minimum=0, maximum=35, unit="blocks", kohya="blocks_to_swap", applies=ONLY_FLUX)
    savings: tuple[str, ...] = training(
        SAVINGS, "When memory is short", "What may be done, in this order, so that the run does not end. The first "
        "four give the same LoRA; the last two change it a little.", choices=SAVINGS)
    attention: str = training(
        "sdpa", "Attention", "Which code computes attention. torch's own (sdpa) is right for nearly everyone.",
        choices=("sdpa", "xformers"), kohya="sdpa xformers", applies=OTHER_ATTENTION)
    compile: bool = training(
        False, "Compile", "Let torch compile the model: minutes to begin with, then faster steps.",
        kohya="torch_compile")
    gradient_clipping: float = training(
        1.0, "Gradient clipping", "Limits how far one step may go. 0 is off.",
        minimum=0, kohya="max_grad_norm", metadata="ss_max_grad_norm")
    seed: int = training(
        -1, "Seed", "The same seed and settings give the same training. -1 draws one and records it.",
        minimum=-1, maximum=2**32 - 1, seaart="ランダムシード", kohya="seed", metadata="ss_seed")

    # ---- learning rate and optimizer

    learning_rate: float = learning(
        1e-4, "Learning rate", "How much each step changes the LoRA. Too high ruins it, too low learns nothing.",
        minimum=0, seaart="学習率", kohya="learning_rate", metadata="ss_learning_rate")
    unet_lr: float | None = learning(
        None, "U-Net learning rate", "For the part that draws: looks and style. Empty uses the learning rate above.",
        minimum=0, derived=lambda config: config.learning_rate, seaart="U-Net学習率", kohya="unet_lr",
        metadata="ss_unet_lr",
        applies=Applies("Used only when the U-Net is trained.", lambda config: config.train != "text_encoder"))
    text_encoder_lr: float | tuple[float, float] | None = learning(
        None, "Text encoder learning rate", "For the part that reads the prompt: composition and pose. Empty uses the "
        "learning rate above; SDXL may have two, one for each text encoder.",
        minimum=0, derived=lambda config: config.learning_rate, seaart="テキストエンコーダー学習率",
        kohya="text_encoder_lr", metadata="ss_text_encoder_lr",
        applies=Applies("Used only when the text encoder is trained.", lambda config: config.train != "unet"))
    warmup_percent: float = learning(
        0.0, "Warm-up (%)", "The learning rate rises from 0 over this part of all steps.",
        minimum=0, maximum=100, unit="%", seaart="学習率ウォームアップ(%)", kohya="lr_warmup_steps",
        metadata="ss_lr_warmup_steps")
    schedule: str = learning(
        "cosine_with_restarts", "Schedule", "How the learning rate changes during training.",
        choices=("cosine_with_restarts", "cosine", "linear", "polynomial", "constant_with_warmup", "constant"),
        seaart="学習率スケジューラー", kohya="lr_scheduler", metadata="ss_lr_scheduler")
    restarts: int = learning(
        1, "Restarts", "How many times the rate falls along a cosine; before each further time it is reset.",
        minimum=1, maximum=100, unit="times", seaart="反復回数", kohya="lr_scheduler_num_cycles",
        applies=Applies("Used only by the schedule cosine_with_restarts.",
                        lambda config: config.schedule == "cosine_with_restarts"))
    power: float = learning(
        1.0, "Power", "How sharply the rate falls: 1 is a straight line, 2 falls faster at first.",
        above=0, kohya="lr_scheduler_power",
        applies=Applies("Used only by the schedule polynomial.", lambda config: config.schedule == "polynomial"))
    optimizer: str | None = learning(
        None, "Optimizer", "How each step is worked out. Automatic is AdamW8bit on an NVIDIA GPU, else AdamW. "
        "DAdaptation, DAdaptAdam and Prodigy find the rate themselves and want a learning rate of 1.",
        choices=("AdamW", "AdamW8bit", "Adafactor", "Lion", "DAdaptation", "DAdaptAdam", "Prodigy", "Lion8bit",
                 "PagedAdamW8bit", "CAME", "ScheduleFreeAdamW", "ProdigyPlusScheduleFree"),
        seaart="オプティマイザー", kohya="optimizer_type", metadata="ss_optimizer")
    optimizer_args: tuple[str, ...] = learning(
        (), "Optimizer arguments", "Further arguments of the optimizer, each as name=value, such as weight_decay=0.01.",
        kohya="optimizer_args")
    train: str | None = learning(
        None, "What to train", "Which parts learn. The U-Net learns looks and style; the text encoder learns words. "
        "Automatic is both for SD1.5 and SD2, and the U-Net alone for SDXL and Flux.",
        choices=("both", "unet", "text_encoder"),
        family_defaults={"sd15": "both", "sd2": "both", "sdxl": "unet", "flux": "unet"},
        seaart="U-Netのみ / テキストエンコーダのみをトレーニング",
        kohya="network_train_unet_only network_train_text_encoder_only")
    min_snr_gamma: float = learning(
        0.0, "Min-SNR gamma", "Lets no noise level outweigh the others, which steadies training. 5 is usual, 0 is off.",
        minimum=0, maximum=20, seaart="最小SNRガンマ値", kohya="min_snr_gamma", metadata="ss_min_snr_gamma",
        applies=NOT_FLUX)
    loss: str = learning(
        "l2", "Loss", "How an error is measured. huber and smooth_l1 are less disturbed by a few bad pictures.",
        choices=("l2", "huber", "smooth_l1"), kohya="loss_type", metadata="ss_loss_type")
    huber_schedule: str = learning(
        "constant", "Huber schedule", "How the Huber threshold changes with the noise level.",
        choices=("constant", "exponential", "snr"), kohya="huber_schedule", metadata="ss_huber_schedule",
        applies=WITH_HUBER)
    huber_c: float = learning(
        0.1, "Huber threshold", "Errors larger than this count less.",
        above=0, kohya="huber_c", metadata="ss_huber_c", applies=WITH_HUBER)
    debiased_estimation: bool = learning(
        False, "Debiased estimation", "Weighs noise levels so that the noisy ones count more.",
        kohya="debiased_estimation_loss", metadata="ss_debiased_estimation", applies=NOT_FLUX)
    v_pred_like_loss: float = learning(
        0.0, "V-prediction-like loss", "Adds this share of a v-prediction loss to an epsilon model's. 0 is off.",
        minimum=0, kohya="v_pred_like_loss", applies=NOT_FLUX)
    scale_v_pred_loss: bool = learning(
        False, "Scale v-prediction loss", "Weighs a v-prediction model's noise levels as an epsilon model's.",
        kohya="scale_v_pred_loss_like_noise_pred", applies=NOT_FLUX)
    scale_weight_norms: float = learning(
        0.0, "Scale weight norms", "Keeps the LoRA's weights from growing beyond this. 1 is usual, 0 is off.",
        minimum=0, kohya="scale_weight_norms", metadata="ss_scale_weight_norms")

    # ---- network

    kind: str = network(
        "LoRA", "Kind", "The kind of network. LoRA suits nearly everything; LoCon also trains 3x3 convolutions. LoHa "
        "and LoKr get more out of fewer numbers, DoRA learns strength and direction apart; their steps take longer.",
        choices=("LoRA", "LoCon", "LoHa", "LoKr", "DoRA"), kohya="network_module", metadata="ss_network_module")
    rank: int = network(
        32, "Network size (rank)", "How much the LoRA can hold. More keeps finer detail and makes a larger file.",
        minimum=1, maximum=1024, seaart="ネットワークサイズ", kohya="network_dim", metadata="ss_network_dim")
    alpha: float | None = network(
        None, "Network alpha", "What is learned is scaled by alpha / rank. Empty is half the rank.",
        above=0, derived=lambda config: config.rank / 2, seaart="ネットワークAlpha", kohya="network_alpha",
        metadata="ss_network_alpha")
    conv_rank: int = network(
        0, "Convolution rank", "The rank for 3x3 convolutions. 0 leaves them alone.",
        minimum=0, maximum=1024, kohya="network_args.conv_dim", applies=WITH_CONVOLUTIONS)
    conv_alpha: float | None = network(
        None, "Convolution alpha", "Like alpha, for 3x3 convolutions. Empty is half the convolution rank.",
        above=0, derived=lambda config: config.conv_rank / 2 or None, kohya="network_args.conv_alpha",
        applies=WITH_CONVOLUTIONS)
    lokr_factor: int = network(
        -1, "LoKr factor", "LoKr makes each weight out of a small and a large matrix; this is about the small one's "
        "size. 4 to 16 is usual, less gives a larger file; -1 makes both alike, which gives the smallest.",
        minimum=-1, maximum=1024, kohya="network_args.factor",
        applies=Applies("Used only by the kind LoKr.", lambda config: config.kind == "LoKr"))
    double_blocks: str = network(
        "all", "Double blocks", "Which of Flux's 19 double blocks are trained: all, none, or numbers from 0 such as "
        "0-5,8.",
        kohya="network_args.train_double_block_indices", applies=ONLY_FLUX)
    single_blocks: str = network(
        "all", "Single blocks", "Which of Flux's 38 single blocks are trained: all, none, or numbers from 0 such as "
        "0-5,8.",
        kohya="network_args.train_single_block_indices", applies=ONLY_FLUX)
    block_wise: bool = network(
        False, "Block-wise", "Treat the model's blocks differently, as the three lists below say.",
        seaart="階層別学習率を有効化")
    block_lr_weights: tuple[float, ...] | str | None = network(
        None, "Learning rate weight per block", "A number for each block (25 for SD1.5 and SD2, 21 for SDXL, 57 for "
        "Flux; 0 leaves a block out), or a shape: flat, cosine, sine, linear or reverse. cosine+0.25 adds 0.25 to "
        "each number.",
        minimum=0, kohya="network_args.down_lr_weight network_args.mid_lr_weight network_args.up_lr_weight",
        applies=WITH_BLOCKS)
    block_ranks: tuple[int, ...] | None = network(
        None, "Rank per block", "A rank for each block (25 for SD1.5 and SD2, 21 for SDXL, 57 for Flux); 0 leaves a "
        "block out.",
        minimum=0, maximum=1024, kohya="network_args.block_dims", applies=WITH_BLOCKS)
    block_alphas: tuple[float, ...] | None = network(
        None, "Alpha per block", "An alpha for each block (25 for SD1.5 and SD2, 21 for SDXL, 57 for Flux).",
        above=0, kohya="network_args.block_alphas",
        applies=Applies("Used only with a rank per block.", lambda c: c.block_wise and c.block_ranks is not None))
    dropout: float = network(
        0.0, "Dropout", "The share of the LoRA's inner values left out of each step; against learning by heart.",
        minimum=0, below=1, kohya="network_dropout", metadata="ss_network_dropout")
    rank_dropout: float = network(
        0.0, "Rank dropout", "The share of ranks left out of each step.",
        minimum=0, below=1, kohya="network_args.rank_dropout")
    module_dropout: float = network(
        0.0, "Module dropout", "The share of modules left out of each step.",
        minimum=0, below=1, kohya="network_args.module_dropout")
    start_lora: str | None = network(
        None, "Start from a LoRA", "Go on training this LoRA instead of beginning with an empty one.",
        path=True, kohya="network_weights")

    # ---- noise and timesteps

    noise_offset: float = noise(
        0.0, "Noise offset", "Helps with very dark and very bright pictures. 0.05 is usual, 0 is off.",
        minimum=0, maximum=1, seaart="ノイズオフセット", kohya="noise_offset", metadata="ss_noise_offset",
        applies=NOT_FLUX)
    noise_offset_random_strength: bool = noise(
        False, "Random noise offset", "Draw the offset anew each time, between 0 and the value above.",
        kohya="noise_offset_random_strength", metadata="ss_noise_offset_random_strength", applies=WITH_OFFSET)
    adaptive_noise_scale: float = noise(
        0.0, "Adaptive noise offset", "Adds this times the picture's mean latent to the offset. 0 is off.",
        minimum=-1, maximum=1, kohya="adaptive_noise_scale", metadata="ss_adaptive_noise_scale", applies=WITH_OFFSET)
    multires_iterations: int = noise(
        0, "Multires noise iterations", "Adds noise at this many coarser scales, for better contrast. 0 is off.",
        minimum=0, maximum=16, seaart="Multires noise iterations", kohya="multires_noise_iterations",
        metadata="ss_multires_noise_iterations", applies=NOT_FLUX)
    multires_discount: float = noise(
        0.3, "Multires noise discount", "How much of each coarser scale's noise is added.",
        minimum=0, maximum=1, seaart="Multires noise discount", kohya="multires_noise_discount",
        metadata="ss_multires_noise_discount",
        applies=Applies("Used only with multires noise iterations, and not for Flux.",
                        lambda config: config.multires_iterations > 0 and config.family != "flux"))
    input_perturbation: float = noise(
        0.0, "Input perturbation", "A little extra noise on what the model sees. 0.1 is usual, 0 is off.",
        minimum=0, maximum=1, kohya="ip_noise_gamma", metadata="ss_ip_noise_gamma")
    min_timestep: int = noise(
        0, "Lowest timestep", "Train on no cleaner pictures than this. Details are learned at low timesteps.",
        minimum=0, maximum=999, kohya="min_timestep")
    max_timestep: int = noise(
        1000, "Highest timestep", "Train on no noisier pictures than this. Composition is learned at high timesteps.",
        minimum=1, maximum=1000, kohya="max_timestep")
    timestep_sampling: str = noise(
        "shift", "Timestep sampling", "How Flux's noise levels are drawn: all alike (uniform), the middle ones more "
        "often (sigmoid), or moved towards more noise (shift, sigma, and flux_shift by the picture's size).",
        choices=("sigma", "uniform", "sigmoid", "shift", "flux_shift"), kohya="timestep_sampling", applies=ONLY_FLUX)
    flow_shift: float = noise(
        3.1582, "Flow shift", "Moves Flux's noise levels towards more noise; 1 leaves them.",
        above=0, kohya="discrete_flow_shift", applies=WITH_SHIFT)
    guidance: float = noise(
        1.0, "Guidance", "The guidance that FLUX.1 dev is trained at; 1 is right. Schnell has none.",
        minimum=0, kohya="guidance_scale", applies=ONLY_FLUX)

    # ---- saving

    output_name: str | None = saving(
        None, "LoRA's name", "The file name of the LoRA, without its ending. Empty uses the dataset name.",
        derived=lambda config: config.dataset_name or None, seaart="データセット名", kohya="output_name",
        metadata="ss_output_name")
    output_folder: str = saving(
        "output", "Output folder", "Where the LoRA, its previews and its training state are written.",
        path=True, kohya="output_dir")
    save_every_epochs: int = saving(
        1, "Save every N epochs", "10 epochs saved every 2 give 5 files; the last epoch is always saved.",
        minimum=1, maximum=10000, unit="epochs", seaart="NラウンドごとにLoRAを保存", kohya="save_every_n_epochs")
    save_every_steps: int = saving(
        0, "Save every N steps", "Save within epochs too. 0 is off.",
        minimum=0, maximum=10_000_000, unit="steps", kohya="save_every_n_steps")
    keep_last: int = saving(
        0, "Keep the last N", "Delete older saves beyond this many. 0 keeps all.",
        minimum=0, maximum=10000, unit="files", kohya="save_last_n_epochs")
    save_precision: str = saving(
        "fp16", "Saved precision", "How exactly the LoRA's numbers are stored. fp32 is for training it further.",
        choices=("fp16", "fp32", "bf16"), seaart="LoRAの保存精度", kohya="save_precision")
    save_state: str = saving(
        "every", "Training state", "When to write what a stopped training needs to go on; only the newest is kept.",
        choices=("off", "every", "end"), kohya="save_state save_state_on_train_end")
    overwrite: str = saving(
        "refuse", "If the name is taken", "Refuse to start, or add a number to the name.",
        choices=("refuse", "number"))
    comment: str = saving(
        "", "Comment", "Any text, stored in the LoRA file.", kohya="training_comment", metadata="ss_training_comment")

    # ---- previews

    preview_prompts: tuple[str, ...] = previews(
        (), "Preview prompts", "One picture is made of each. {trigger} stands for the trigger word, (a:1.2) weighs "
        "words; empty uses the first picture's caption.",
        seaart="モデル効果プレビューのプロンプト", kohya="sample_prompts", applies=WITH_PREVIEWS)
    negative_prompt: str = previews(
        "", "Negative prompt", "What the previews should not show.", applies=WITH_CFG)
    preview_size: tuple[int, int] | None = previews(
        None, "Preview size", "Width and height of the previews. Empty uses the training resolution.",
        minimum=64, maximum=4096, multiple_of=8, unit="pixels", derived=lambda config: config.resolution,
        applies=WITH_PREVIEWS)
    preview_steps: int = previews(
        20, "Preview steps", "Sampling steps of a preview.",
        minimum=1, maximum=150, unit="steps", applies=WITH_PREVIEWS)
    preview_cfg: float = previews(
        7.0, "Preview CFG scale", "How closely previews follow their prompt.",
        minimum=1, maximum=30, applies=WITH_CFG)
    preview_guidance: float = previews(
        3.5, "Preview guidance", "How closely FLUX.1 dev's previews follow their prompt: the WebUI's Distilled CFG "
        "Scale. Schnell has none.",
        minimum=0, maximum=30, applies=WITH_GUIDANCE)
    preview_sampler: str = previews(
        "Euler a", "Preview sampler", "The sampler that previews are made with.",
        choices=("Euler a", "Euler", "Heun", "DPM2", "DPM2 Karras", "DPM2 a", "DPM2 a Karras", "DPM++ 2M",
                 "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DDIM", "PLMS", "UniPC"),
        kohya="sample_sampler", applies=WITH_CFG)
    preview_seed: int = previews(
        42, "Preview seed", "Previews of all epochs share it, so that they can be compared.",
        minimum=0, maximum=2**32 - 1, applies=WITH_PREVIEWS)
    preview_every_epochs: int = previews(
        1, "Preview every N epochs", "How often previews are made. 0 is never.",
        minimum=0, maximum=10000, unit="epochs", kohya="sample_every_n_epochs")
    preview_at_start: bool = previews(
        True, "Preview at the start", "Also make previews before training, to compare with.",
        kohya="sample_at_first")

    def for_family(self, family: str) -> Config:
        """This config for a base of that family: each None that it or another setting decides is filled in.

        What stays None is off (``vae``, ``start_lora``, the block lists ...) or depends on the device (``optimizer``)
        or on the captions (``shuffle_tags``). Raises ValueError for a family that is not in ``FAMILIES``.
        """
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, not {family!r}")
        own = {row.name: row.family_defaults[family] for row in SETTINGS.values() if family in row.family_defaults}
        config = replace(self, family=family, **{name: own[name] for name in own if getattr(self, name) is None})
        derived = {row.name: row.derived(config) for row in SETTINGS.values() if row.derived}
        return replace(config, **{name: derived[name] for name in derived if getattr(config, name) is None})


# fmt: on

SETTINGS: dict[str, Setting] = settings_of(Config)
SUBSET_SETTINGS: dict[str, Setting] = settings_of(Subset)

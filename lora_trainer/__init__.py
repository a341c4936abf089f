"""Train a LoRA for Stable Diffusion from a folder of pictures."""

__version__ = "0.1.0"

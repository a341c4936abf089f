"""Train a LoRA for Stable Diffusion or Flux from a folder of pictures."""

__version__ = "0.1.0"

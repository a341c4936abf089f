"""Base models: their parts as modules, and what a training loop needs to know of their family.

Importing this loads neither diffusers nor transformers; `family_of` does, as it is called for when a model is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lora_trainer.inspecting import FAMILIES, BaseModel, Facts

if TYPE_CHECKING:
    import torch

    from lora_trainer.training.families.text import Conditioning


class Family(Protocol):
    """What differs between families of base models, as far as a training loop has to ask.

    A model is loaded frozen, in eval mode, in the precision and on the device asked for; BadInput if it can't be.
    A flow-matching transformer is a family like any other: its text encoders' `encode` gives T5's states as `context`
    and CLIP's as `pooled`, and its `denoise` predicts the velocity.
    """

    @property
    def facts(self) -> Facts: ...

    def load_text_encoders(self, base: BaseModel, dtype: torch.dtype, device: torch.device | str = "cpu") -> Any:
        """Something with `.encoders`, a tuple of modules, and `.encode(texts, ...) -> Conditioning`."""
        ...

    def load_vae(
        self, base: BaseModel, vae_file: Path | None, dtype: torch.dtype, device: torch.device | str = "cpu",
        decoder: bool = True,
    ) -> Any:  # fmt: skip
        """The base's own or that of `vae_file`; without `decoder` one that only encodes."""
        ...

    def load_denoiser(
        self, base: BaseModel, dtype: torch.dtype, device: torch.device | str = "cpu", hold: str | None = None,
        swap_blocks: int = 0,
    ) -> Any:  # fmt: skip
        """`hold`: what its layers' weights are rounded to, "fp8" or "nf4"; None leaves them as they are computed with.

        `swap_blocks`: how many blocks' weights stay in host memory, where the family has such blocks.
        """
        ...

    def denoise(
        self,
        model: torch.nn.Module,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
        sizes: torch.Tensor | None = None,
        guidance: float = 1.0,
    ) -> torch.Tensor:
        """The model's prediction for `noisy` latents (B, C, H, W), in their shape.

        `sizes` (B, 6), in pixels: the picture's height and width before it was resized, the cut's top and left, the
        height and width it is shown at. `guidance`: a scale that a model may have been distilled to follow. Families
        that are not told these leave them unread.
        """
        ...

    def denoiser_targets(self, model: torch.nn.Module, convolutions: bool = False) -> dict[str, str]:
        """Each module that gets a LoRA -> its name in the LoRA file."""
        ...

    def text_encoder_targets(self, encoder: torch.nn.Module, place: int = 0) -> dict[str, str]:
        """Likewise for the text encoder number `place`, counted from 0."""
        ...


def family_of(base: BaseModel) -> Family:
    """The family that `base` belongs to."""
    if base.family == "flux":
        from lora_trainer.training.families.flux.family import Flux

        return Flux(FAMILIES[base.family])
    from lora_trainer.training.families.sd import StableDiffusion

    return StableDiffusion(FAMILIES[base.family])

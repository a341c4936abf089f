"""From captions to what Flux is conditioned on: T5's states of all tokens, and CLIP's summary of the whole text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, T5EncoderModel

from lora_trainer.inspecting.facts import EOS_ID
from lora_trainer.training.families.flux.tokenizer import T5Tokenizer
from lora_trainer.training.families.text import CHUNK, Conditioning, chunks, tokenize


@dataclass(frozen=True)
class FluxTextEncoders:
    """CLIP-L, which may be trained, and T5, which is not and may have gone (`without_t5`)."""

    clip: CLIPTextModel
    t5: T5EncoderModel | None
    tokenizer: T5Tokenizer

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        return (self.clip,) if self.t5 is None else (self.clip, self.t5)

    def without_t5(self) -> FluxTextEncoders:
        return replace(self, t5=None)

    def encode(self, texts: Sequence[str], *, t5_length: int = 512, t5_mask: bool = False) -> Conditioning:
        """Texts -> context (B, t5_length, C) and pooled (B, P), in the encoders' precision and on their device."""
        return replace(self.contexts(texts, t5_length=t5_length, t5_mask=t5_mask), pooled=self.pooled(texts))

    @torch.no_grad()
    def contexts(self, texts: Sequence[str], *, t5_length: int = 512, t5_mask: bool = False) -> Conditioning:
        """T5's part alone. With `t5_mask` neither T5 nor the transformer sees the padding behind a text."""
        if self.t5 is None:
            raise ValueError("T5 has gone")
        ids, seen = (part.to(self.t5.device) for part in self.tokenizer(texts, t5_length))
        states = self.t5(ids, attention_mask=seen if t5_mask else None).last_hidden_state
        return Conditioning(states, mask=seen if t5_mask else None)

    def pooled(self, texts: Sequence[str]) -> Tensor:
        """CLIP's state (B, P) where the text ends, of at most 75 tokens; gradients flow to weights that ask for it."""
        ids = [chunk for text in texts for chunk in chunks(tokenize(text, CHUNK)[0], CHUNK, EOS_ID)]
        return self.clip(torch.tensor(ids, device=self.clip.device)).pooler_output

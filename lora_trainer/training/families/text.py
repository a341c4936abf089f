"""From captions to what the U-Net is conditioned on, as sd-scripts does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTextModel

from lora_trainer.dataset.captions import parse_weights
from lora_trainer.inspecting.facts import Facts
from lora_trainer.training.families.tokenizer import clip_tokenizer

CHUNK = 75  # tokens of a text that one pass of CLIP takes between BOS and EOS

Tokens = tuple[list[int], list[float]]


@dataclass(frozen=True)
class Conditioning:
    """What the model is told of a batch: `context` (B, T, C) for attention, `pooled` (B, P) if it takes one.

    `mask` (B, T), bool: which places of the context are seen; None where all are.
    """

    context: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class TextEncoders:
    """A family's text encoders, in the order in which their hidden states stand in the context."""

    encoders: tuple[CLIPTextModel, ...]
    facts: Facts

    def encode(
        self, texts: Sequence[str], *, max_token_length: int = CHUNK, clip_skip: int = 1, weighted: bool = False
    ) -> Conditioning:
        """Texts -> context (B, max_token_length + 2, C), in the encoders' precision and on their device.

        `max_token_length`: 75, 150 or 225; longer texts lose their end. Each 75 tokens go through the encoder between a
        BOS and an EOS of their own; of these, the first BOS and the last place are kept. `clip_skip` N takes the N-th
        hidden state from the end, with the final layer norm; a family with a penultimate context ignores it.
        `weighted`: `(tag:1.2)` multiplies its tokens' hidden states, `( ) [ ]` are not part of the text.
        Gradients flow to the encoders' weights where these ask for it.
        """
        tokens = [tokenize(text, max_token_length, weighted) for text in texts]
        encoded = [self._run(place, [ids for ids, _ in tokens], max_token_length, clip_skip) for place in self._places]
        context = torch.cat([hidden for hidden, _ in encoded], dim=-1)
        if weighted:
            weights = torch.tensor([_padded_weights(weights, max_token_length) for _, weights in tokens])
            context = context * weights.to(context)[..., None]
        return Conditioning(context, encoded[-1][1])

    @property
    def _places(self) -> range:
        return range(len(self.encoders))

    def _run(
        self, place: int, tokens: Sequence[list[int]], max_token_length: int, clip_skip: int
    ) -> tuple[Tensor, Tensor | None]:
        """One encoder's hidden states (B, T, C), and its pooled output (B, P) of the first 75 tokens."""
        encoder, pad = self.encoders[place], self.facts.text_encoders[place].pad_token_id
        ids = torch.tensor([chunk for text in tokens for chunk in chunks(text, max_token_length, pad)])
        out = encoder(ids.to(encoder.device), output_hidden_states=True)
        if self.facts.penultimate:
            hidden = out.hidden_states[-2]
        else:
            hidden = encoder.text_model.final_layer_norm(out.hidden_states[-clip_skip])
        pooled = out.text_embeds[:: max_token_length // CHUNK] if "text_embeds" in out else None
        return _joined(hidden, len(tokens)), pooled


def tokenize(text: str, longest: int, weighted: bool = False) -> Tokens:
    """Token ids without BOS and EOS, and the weight of each, at most `longest`."""
    ids: list[int] = []
    weights: list[float] = []
    for part, weight in parse_weights(text) if weighted else [(text, 1.0)]:
        found = clip_tokenizer()(part, add_special_tokens=False, verbose=False).input_ids
        ids += found
        weights += [weight] * len(found)
    return ids[:longest], weights[:longest]


def chunks(ids: list[int], longest: int, pad: int) -> list[list[int]]:
    """`longest` / 75 times BOS, up to 75 tokens, EOS, and padding up to 77."""
    tokenizer = clip_tokenizer()
    found = []
    for start in range(0, longest, CHUNK):
        part = ids[start : start + CHUNK]
        padding = [pad] * (CHUNK - len(part))
        found.append([tokenizer.bos_token_id, *part, tokenizer.eos_token_id, *padding])
    return found


def _joined(hidden: Tensor, texts: int) -> Tensor:
    """(texts x chunks, 77, C) -> (texts, chunks x 75 + 2, C): of the ends only the very first and last stay."""
    hidden = hidden.view(texts, -1, *hidden.shape[1:])
    middle = hidden[:, :, 1:-1].flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], middle, hidden[:, -1, -1:]], dim=1)


def _padded_weights(weights: list[float], longest: int) -> list[float]:
    """A weight for each place of the context: 1 for BOS, EOS and padding."""
    return [1.0, *weights, *[1.0] * (longest + 1 - len(weights))]

"""What texts become, against transformers' models called by hand."""

from __future__ import annotations

import pytest
import torch

from lora_trainer.training.families import family_of
from lora_trainer.training.families.flux.text import FluxTextEncoders
from lora_trainer.training.families.tokenizer import clip_tokenizer
from tests.training.families.flux.conftest import Make

TEXTS = ["a photo of a blob", "red, on the left of the grey one"]


@pytest.fixture
def encoders(flux: Make) -> FluxTextEncoders:
    _, base = flux()
    return family_of(base).load_text_encoders(base, torch.float32)


@pytest.mark.parametrize("length", [16, 40])
def test_the_context_is_t5s_last_state_of_text_and_padding(encoders: FluxTextEncoders, length: int) -> None:
    found = encoders.encode(TEXTS, t5_length=length)
    ids, _ = encoders.tokenizer(TEXTS, length)
    assert encoders.t5 is not None
    torch.testing.assert_close(found.context, encoders.t5(ids).last_hidden_state)
    assert found.context.shape == (2, length, 64)
    assert found.mask is None


def test_with_the_mask_padding_is_seen_by_nobody(encoders: FluxTextEncoders) -> None:
    found = encoders.encode(TEXTS, t5_length=40, t5_mask=True)
    assert found.mask is not None
    for place, text in enumerate(TEXTS):
        count = len(encoders.tokenizer.tokenizer.encode(text).ids)
        assert found.mask[place].tolist() == [True] * count + [False] * (40 - count)
        alone = encoders.contexts([text], t5_length=count)
        torch.testing.assert_close(found.context[place, :count], alone.context[0])


def test_pooled_is_clips_state_where_the_text_ends(encoders: FluxTextEncoders) -> None:
    ids = clip_tokenizer()(TEXTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    states = encoders.clip(ids).last_hidden_state
    ends = (ids == 49_407).int().argmax(1)
    torch.testing.assert_close(encoders.encode(TEXTS, t5_length=8).pooled, states[torch.arange(2), ends])


def test_of_a_long_text_clip_reads_75_tokens(encoders: FluxTextEncoders) -> None:
    words = ["cat"] * 75
    assert torch.equal(encoders.pooled([" ".join(words)]), encoders.pooled([" ".join([*words, "dog", "dog"])]))


def test_gradients_reach_clip_alone(encoders: FluxTextEncoders) -> None:
    for encoder in encoders.encoders:
        encoder.requires_grad_(True)
    found = encoders.encode(TEXTS, t5_length=8)
    assert found.pooled is not None
    assert found.pooled.requires_grad and not found.context.requires_grad


def test_clip_works_on_when_t5_has_gone(encoders: FluxTextEncoders) -> None:
    alone = encoders.without_t5()
    assert alone.encoders == (encoders.clip,)
    assert torch.equal(alone.pooled(TEXTS), encoders.pooled(TEXTS))
    with pytest.raises(ValueError, match="T5 has gone"):
        alone.encode(TEXTS)

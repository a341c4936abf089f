from __future__ import annotations

import pytest
import torch

from lora_trainer.inspecting import identify
from lora_trainer.training.families.load import load_text_encoders
from lora_trainer.training.families.tokenizer import clip_tokenizer

BOS, EOS = 49_406, 49_407
LONG = "a photo of a cat " * 20  # 100 tokens


@pytest.fixture
def encoders(small):
    return lambda family: load_text_encoders(identify(small(family).path), torch.float32)


def padded(ids, pad):
    """One pass of CLIP: BOS, up to 75 ids, EOS, padding up to 77."""
    return [BOS, *ids, EOS, *[pad] * (75 - len(ids))]


def run(source, rows):
    with torch.no_grad():
        return source(torch.tensor(rows), output_hidden_states=True)


def with_norm(source, hidden):
    with torch.no_grad():
        return source.text_model.final_layer_norm(hidden)


@pytest.mark.parametrize("clip_skip", [1, 2, 3])
def test_sd15_takes_the_nth_last_state_with_the_final_norm(small, encoders, clip_skip):
    source = small("sd15").models.text_encoders[0]
    out = run(source, [padded([320, 1125, 539, 320, 2368], EOS), padded([], EOS)])

    found = encoders("sd15").encode(["a photo of a cat", ""], clip_skip=clip_skip)

    torch.testing.assert_close(found.context, with_norm(source, out.hidden_states[-clip_skip]))
    assert found.pooled is None
    if clip_skip == 1:
        torch.testing.assert_close(found.context, out.last_hidden_state)


def test_sd2_takes_the_last_layer_but_one_and_pads_with_zeros(small, encoders):
    source = small("sd2").models.text_encoders[0]
    out = run(source, [padded([320, 1125], 0)])

    found = encoders("sd2").encode(["a photo"])

    torch.testing.assert_close(found.context, with_norm(source, out.hidden_states[-2]))
    assert found.pooled is None


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_sdxl_joins_both_encoders_last_states_but_one_and_pools_the_second(small, encoders, clip_skip):
    first, second = small("sdxl").models.text_encoders
    ids = [320, 1125, 539, 320, 2368]
    out1, out2 = run(first, [padded(ids, EOS)]), run(second, [padded(ids, 0)])

    found = encoders("sdxl").encode(["a photo of a cat"], clip_skip=clip_skip)

    expected = torch.cat([out1.hidden_states[-2], out2.hidden_states[-2]], dim=-1)
    torch.testing.assert_close(found.context, expected)
    with torch.no_grad():  # the projection at EOS, the seventh place
        projected = second.text_projection(out2.last_hidden_state[:, 6])
    torch.testing.assert_close(found.pooled, projected)


@pytest.mark.parametrize("length", [150, 225])
def test_long_texts_go_through_in_chunks_of_75_with_bos_and_eos_each(small, encoders, length):
    source = small("sd15").models.text_encoders[0]
    ids = clip_tokenizer()(LONG).input_ids[1:-1]
    assert len(ids) == 100
    chunks = [padded(ids[:75], EOS), padded(ids[75:], EOS), padded([], EOS)][: length // 75]
    hidden = run(source, chunks).last_hidden_state

    found = encoders("sd15").encode([LONG], max_token_length=length).context

    expected = torch.cat([hidden[0, :1], *(chunk[1:76] for chunk in hidden), hidden[-1, 76:]])
    assert found.shape == (1, length + 2, 24)
    torch.testing.assert_close(found[0], expected)


def test_sdxl_pools_the_first_chunk_and_pads_each_encoder_its_way(small, encoders):
    first, second = small("sdxl").models.text_encoders
    ids = clip_tokenizer()(LONG).input_ids[1:-1]
    out1 = run(first, [padded(ids[:75], EOS), padded(ids[75:], EOS), padded([], EOS)]).hidden_states[-2]
    out2 = run(second, [padded(ids[:75], 0), padded(ids[75:], 0), padded([], 0)])
    states = torch.cat([out1, out2.hidden_states[-2]], dim=-1)
    texts = [LONG, LONG]

    found = encoders("sdxl").encode(texts, max_token_length=225)

    expected = torch.cat([states[0, :1], *(chunk[1:76] for chunk in states), states[2, 76:]])
    assert found.context.shape == (2, 227, 40)
    for context, pooled in zip(found.context, found.pooled, strict=True):
        torch.testing.assert_close(context, expected)
        torch.testing.assert_close(pooled, out2.text_embeds[0])


def test_a_text_that_is_too_long_loses_its_end(encoders):
    sd15 = encoders("sd15")
    words = LONG.split()

    assert torch.equal(sd15.encode([LONG]).context, sd15.encode([" ".join(words[:75])]).context)


@pytest.mark.parametrize("length", [75, 225])
def test_weights_multiply_the_states_of_their_tokens_alone(encoders, length):
    sd15 = encoders("sd15")
    plain = sd15.encode(["a photo of a cat"], max_token_length=length).context

    found = sd15.encode(["a (photo:1.5) of [a] cat"], max_token_length=length, weighted=True).context

    weights = torch.ones(length + 2)
    weights[2], weights[4] = 1.5, 1 / 1.1  # behind BOS: a photo of a cat
    torch.testing.assert_close(found, plain * weights[None, :, None])


def test_weights_reach_the_second_chunk(encoders):
    sdxl = encoders("sdxl")
    text = "cat " * 80
    plain = sdxl.encode([text], max_token_length=150)

    found = sdxl.encode([f"{'cat ' * 79}(cat:2)"], max_token_length=150, weighted=True)

    weights = torch.ones(152)
    weights[80] = 2
    torch.testing.assert_close(found.context, plain.context * weights[None, :, None])
    torch.testing.assert_close(found.pooled, plain.pooled)


def test_brackets_are_text_unless_weights_are_asked_for(encoders):
    sd15 = encoders("sd15")

    assert not torch.allclose(sd15.encode(["(cat:1.0)"]).context, sd15.encode(["cat"]).context)
    assert torch.equal(sd15.encode(["(cat:1.0)"], weighted=True).context, sd15.encode(["cat"]).context)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_gradients_reach_the_encoders(encoders, family):
    loaded = encoders(family)
    weights = [encoder.text_model.encoder.layers[0].self_attn.q_proj.weight for encoder in loaded.encoders]
    for weight in weights:
        weight.requires_grad_(True)

    conditioning = loaded.encode(["a (cat:1.2)", "dog"], max_token_length=150, weighted=True)
    conditioning.context.square().mean().backward()

    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)

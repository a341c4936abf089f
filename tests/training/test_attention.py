"""Attention by products against torch's own in float64, and inside diffusers' layer against its own processor."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_trainer.training import attention
from lora_trainer.training.attention import ProductAttention, attend


def tensors(seed: int, batch: int, heads: int, queries: int, keys: int, width: int, spread: float = 1.0):
    """q, k, v as diffusers hands them over: views of (B, tokens, heads * width)."""
    generator = torch.Generator().manual_seed(seed)

    def view(tokens: int, scale: float = 1.0) -> torch.Tensor:
        x = torch.randn(batch, tokens, heads * width, generator=generator) * scale
        return x.to(torch.bfloat16).unflatten(-1, (heads, width)).transpose(1, 2)

    return view(queries, spread), view(keys), view(keys)


def with_gradients(attend, q, k, v, dtype):
    """The output and the gradients of a fixed function of it, in float64."""
    inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    out = attend(*inputs)
    weights = torch.linspace(-1, 1, out.shape[-1], dtype=torch.float64).to(dtype)
    (out * weights).sum().backward()
    return [found.detach().double() for found in (out, *(x.grad for x in inputs))]


def error(found, expected) -> float:
    """Relative, but for elements that are all small: gradients of a few keys nearly cancel."""
    return float((found - expected).norm() / max(expected.norm(), 0.3 * expected.numel() ** 0.5))


def assert_close(q, k, v, tolerance=0.015):
    found = with_gradients(attend, q, k, v, torch.bfloat16)
    expected = with_gradients(F.scaled_dot_product_attention, q, k, v, torch.float64)
    for name, one, other in zip(("out", "grad q", "grad k", "grad v"), found, expected):
        assert error(one, other) < tolerance, name


@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 90), st.integers(2, 90), st.sampled_from([5, 16, 40]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_output_and_gradients_are_those_of_softmax_attention(batch, heads, queries, keys, width, chunked):
    q, k, v = tensors(queries * 100 + keys, batch, heads, queries, keys, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "CHUNK", 32)
        patch.setattr(attention, "FEW_KEYS", 0 if chunked else 10**9)
        # Gradients of up to four keys cancel over the queries: the worst of 9,000 draws had 0.041, torch's own 0.039.
        assert_close(q, k, v, tolerance=0.015 if keys > 4 else 0.06)


def test_scores_far_from_zero_are_still_rounded_finely():
    q, k, v = tensors(0, 1, 2, 512, 512, 40, spread=4)
    k = k + 3  # moves a query's scores all together, which the softmax must not see
    assert_close(q, k, v, tolerance=0.02)


def test_the_gradient_reaches_only_what_asks_for_it():
    q, k, v = tensors(1, 1, 2, 24, 12, 8)
    attend(q.requires_grad_(), k, v).sum().backward()
    assert q.grad is not None and k.grad is None


def test_float32_goes_to_torch_itself():
    q, k, v = (x.float() for x in tensors(2, 1, 2, 30, 30, 8))
    assert torch.equal(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("chunked", [False, True])
def test_the_number_of_threads_changes_no_bit(chunked, monkeypatch):
    monkeypatch.setattr(attention, "CHUNK", 64)
    monkeypatch.setattr(attention, "FEW_KEYS", 0 if chunked else 10**9)
    q, k, v = tensors(3, 1, 3, 200, 200, 16)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(with_gradients(attend, q, k, v, torch.bfloat16))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    if chunked:
        assert all(torch.equal(one, other) for one, other in zip(*found))
    else:
        assert all(error(one, other) < 0.01 for one, other in zip(*found))


@pytest.mark.parametrize("text_width", [None, 24])
def test_in_diffusers_layer_it_does_what_diffusers_processor_does(text_width):
    torch.manual_seed(0)
    layer = Attention(query_dim=32, cross_attention_dim=text_width, heads=4, dim_head=8)
    states, text = torch.randn(2, 50, 32), None if text_width is None else torch.randn(2, 7, text_width)
    layer.set_processor(AttnProcessor2_0())
    expected = layer(states, encoder_hidden_states=text)
    layer.set_processor(ProductAttention())
    torch.testing.assert_close(layer(states, encoder_hidden_states=text), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_a_key_that_outshines_all_of_the_sample_is_not_missed(fused, monkeypatch):
    monkeypatch.setattr(attention, "FUSED", fused and attention.FUSED)
    q, k, v = tensors(4, 1, 2, 600, 600, 16)
    k[:, :, 101] *= 40  # not one of each third, which are looked at first; scores reach beyond 100
    assert_close(q, k, v, tolerance=0.05)


@pytest.mark.parametrize("value", [float("inf"), 1e30])
def test_scores_beyond_all_bounds_end_and_are_not_hidden(value):
    q, k, v = tensors(5, 1, 1, 300, 300, 16)
    k[:, :, 7] = value
    q[:] = 1.0
    assert not torch.isfinite(attend(q, k, v)).any()

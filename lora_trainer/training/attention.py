"""Attention in bfloat16 on a CPU, where torch's own takes two fifths of a Stable Diffusion step.

Whole products over all heads, with torch's softmax between them. Where the keys are many, and the weights (queries x
keys) would take much memory, a head is worked off in chunks of queries by one thread, and the backward pass computes
the weights again.
benchmarks/README.md has the figures.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

FEW_KEYS = 256  # a caption's tokens, or a picture's where the U-Net is narrowest: about as many as a head is wide
CHUNK = 512  # queries; their weights over 4,096 keys take 4 MiB, which the caches hold
FAR = 16.0  # below it e^x and the sigmoid of x differ by less than bfloat16's rounding, up to 10 above a shift so far
FUSED = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_TOO_NEAR = 2.0**-6  # a sum of weights that some weight near 1 may be in
_SHIFTS = 16  # together a million
_SAMPLED_KEYS = 256
_LANES = 16  # products run at full speed when their widths are a multiple of it


class ProductAttention:
    """A processor for diffusers' `Attention`: its layers, and between them `attend`."""

    def __call__(
        self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **unused: object
    ) -> Tensor:
        """hidden_states (B, tokens, width), text (B, tokens, text width) -> (B, tokens, width)."""
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            projected.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for projected in (layer.to_q(hidden_states), layer.to_k(text), layer.to_v(text))
        )
        return layer.to_out[1](layer.to_out[0](attend(q, k, v).transpose(1, 2).flatten(2)))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(width)) v for q, k, v (B, heads, tokens, width)."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    return (_Whole if k.shape[-2] <= FEW_KEYS else _Chunked).apply(q, k, v)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scaled = q / math.sqrt(q.shape[-1])
        queries, keys = _near_their_maximum(scaled, k)
        weights = _softmax(queries @ keys.mT)
        ctx.save_for_backward(scaled, k, v, weights)
        return torch.matmul(weights, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scaled, k, v, weights = ctx.saved_tensors
        grad_v = weights.mT @ grad
        grad_scores = _softmax_backward(grad @ v.mT, weights)
        return (grad_scores @ k).div_(math.sqrt(k.shape[-1])), grad_scores.mT @ scaled, grad_v


class _Chunked(torch.autograd.Function):
    """Weights that are not divided by their sum: exp(score - shift), which for scores far below `shift` is a sigmoid.

    That one runs within the product, on scores that were not rounded yet. The sum comes with the product of weights and
    values, of a value more that is 1; the division is left to the narrow tensors before and behind.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out, width = _like(q), v.shape[-1]
        queries, keys = _near_their_maximum(q / math.sqrt(q.shape[-1]), k)
        queries[..., width] -= FAR
        values, sums = _widened(v, torch.ones_like(v[..., 0])), q.new_empty(q.shape[:-1])

        def head(at: tuple[int, int]) -> None:
            for rows in _chunks(q.shape[-2]):
                product = _weights(queries[at][rows], keys[at]) @ values[at]
                for doubling in range(_SHIFTS):
                    if not bool((near := product[:, width] > _TOO_NEAR).any()):
                        break  # else a score lies far above those of the sample
                    queries[at][rows, width] -= near * FAR * 2**doubling
                    product = _weights(queries[at][rows], keys[at]) @ values[at]
                else:  # scores that are infinite, or as good as that, which must not pass for a choice of one key
                    product[product[:, width] > _TOO_NEAR] = math.nan
                sums[at][rows] = product[:, width]
                out[at][rows] = product[:, :width] / product[:, width:][:, :1]

        _each_head(head, q)
        ctx.save_for_backward(queries, k, v, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, k, v, out, sums = ctx.saved_tensors
        width = k.shape[-1]
        keys, scaled = _widened(k, torch.ones_like(k[..., 0])), queries[..., :width]
        grad_q, grad_k, grad_v = _like(scaled), _like(k), _like(v)
        # The gradient of a score is its weight times that of the weight, less the weights' mean of these; the latter is
        # taken off within the product, in two columns, since one would round it.
        grad = grad / sums[..., None]
        mean = (grad.float() * out.float()).sum(-1)
        rough = mean.to(grad.dtype)
        grads = _widened(grad, -rough, (rough - mean).to(grad.dtype))
        values = _widened(v, torch.ones_like(v[..., 0]), torch.ones_like(v[..., 0]))
        # Sums over chunks are products with a narrow left side: contiguous that way round they are a third faster.
        scaled_t, grad_t = scaled.mT.contiguous(), grad.mT.contiguous()

        def head(at: tuple[int, int]) -> None:
            sum_k, sum_v = torch.zeros(2, width, k.shape[-2])
            for rows in _chunks(scaled.shape[-2]):
                weights = _weights(queries[at][rows], keys[at])
                sum_v += grad_t[at][:, rows] @ weights
                grad_scores = _times(grads[at][rows], values[at], weights)
                grad_q[at][rows] = (grad_scores @ keys[at])[:, :width]
                sum_k += scaled_t[at][:, rows] @ grad_scores
            grad_k[at], grad_v[at] = sum_k.mT, sum_v.mT

        _each_head(head, k)
        return grad_q.div_(math.sqrt(width)), grad_k, grad_v


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    """sigmoid(queries keys^T)"""
    if FUSED:
        return torch.ops.mkldnn._linear_pointwise(queries, keys, None, "sigmoid", [], "")
    return torch.sigmoid(queries @ keys.mT)


def _times(left: Tensor, right: Tensor, factor: Tensor) -> Tensor:
    """left right^T * factor"""
    if FUSED:
        return torch.ops.mkldnn._linear_pointwise.binary(left, factor, right, None, "mul")
    return (left @ right.mT).mul_(factor)


def _near_their_maximum(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """q and k with one more column, whose product takes from a query's scores about the highest of them.

    The softmax stays the same. But scores are rounded to bfloat16, and so those that count are rounded near 0, finely.
    A sample of the keys is enough to know about how high they go.
    """
    highest = (q @ k[..., :: math.ceil(k.shape[-2] / _SAMPLED_KEYS), :].mT).amax(-1)
    return _widened(q, -highest), _widened(k, torch.ones_like(k[..., 0]))


def _softmax(scores: Tensor) -> Tensor:
    """In place: each row is read before it is written."""
    return torch.softmax(scores, -1, out=scores)


def _softmax_backward(grad_weights: Tensor, weights: Tensor) -> Tensor:
    """The gradient of the scores, in place of that of their weights."""
    return torch.ops.aten._softmax_backward_data.out(grad_weights, weights, -1, weights.dtype, grad_input=grad_weights)


def _widened(x: Tensor, *columns: Tensor) -> Tensor:
    """x with `columns` (its shape without the last axis) behind its own, and zeros up to a width that is fast."""
    width = x.shape[-1]
    out = x.new_zeros(*x.shape[:-1], math.ceil((width + len(columns)) / _LANES) * _LANES)
    out[..., :width] = x
    for place, column in enumerate(columns):
        out[..., width + place] = column
    return out


def _like(x: Tensor) -> Tensor:
    """Empty, of x's shape (B, heads, tokens, width), with heads side by side in memory as a Linear layer wants them."""
    batch, heads, tokens, width = x.shape
    return x.new_empty(batch, tokens, heads, width).transpose(1, 2)


def _chunks(tokens: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, tokens)) for start in range(0, tokens, CHUNK)]


def _each_head(work: Callable[[tuple[int, int]], None], x: Tensor) -> None:
    """`work((sample, head))` for all of x (B, heads, ...), a head to a thread: faster than all threads on one head."""

    def without_graph(at: tuple[int, int]) -> None:
        with torch.no_grad():
            work(at)

    places = [(sample, head) for sample in range(x.shape[0]) for head in range(x.shape[1])]
    list(_threads(torch.get_num_threads()).map(without_graph, places))


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """A pool of `count` threads whose products each run in one thread."""
    everyone = threading.Barrier(count)

    def begin(_: int) -> None:
        torch.set_num_threads(1)
        everyone.wait()

    pool = ThreadPoolExecutor(count, "attention")
    list(pool.map(begin, range(count)))
    torch.set_num_threads(count)  # what a thread sets for itself becomes the default of threads to come
    return pool

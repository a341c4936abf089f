"""Flux.1's transformer, module by module under the names of the original files, which LoRA files go by.

Blocks with a stream each for text and picture, then blocks with one for both: rectified flow transformers (Esser et al.
2024, arXiv 2403.03206) with rotary positions (Su et al. 2021, arXiv 2104.09864) and parallel layers (Dehghani et al.
2023, arXiv 2302.05442), by Black Forest Labs. Rotations and norms are computed in float32, products in the weights'
precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_trainer.inspecting.flux import PATCH, depth
from lora_trainer.training.attention import attend

HEAD = 128  # width of an attention head
AXES = (16, 56, 56)  # of a head's numbers that are turned by a place's index, its row and its column
THETA = 10_000  # the slowest of the sinusoids is about that many times slower than the fastest
SINUSOIDS = 256  # width of the embedding of a timestep or a guidance scale
EPS = 1e-6
HALF = 65504.0


@dataclass(frozen=True)
class FluxConfig:
    """Widths and depths. `hidden`: of a token, `mlp`: inside an MLP, `context`: of T5's states, `pooled`: of CLIP's.

    `latent`: of a token of latents, PATCH x PATCH x channels. `guidance`: whether the model is told a guidance scale.
    """

    hidden: int
    mlp: int
    context: int
    pooled: int
    double_blocks: int
    single_blocks: int
    guidance: bool
    latent: int = 64

    @property
    def heads(self) -> int:
        return self.hidden // HEAD

    @classmethod
    def of(cls, shapes: Mapping[str, tuple[int, ...]]) -> FluxConfig:
        """From the shapes of a file's tensors under their original names.

        KeyError names one that is missing; ValueError if no such model is that wide.
        """
        hidden = shapes["img_in.bias"][0]
        if hidden % HEAD:
            raise ValueError(f"a width of {hidden}, which is no multiple of {HEAD}")
        double, single = depth(shapes)
        return cls(
            hidden=hidden,
            mlp=shapes["double_blocks.0.img_mlp.0.bias"][0],
            context=shapes["txt_in.weight"][1],
            pooled=shapes["vector_in.in_layer.weight"][1],
            double_blocks=double,
            single_blocks=single,
            guidance="guidance_in.in_layer.weight" in shapes,
            latent=shapes["final_layer.linear.bias"][0],
        )


class FluxTransformer(nn.Module):
    """The whole model. Blocks are called as modules, so that hooks fire, when they are computed again, too."""

    def __init__(self, config: FluxConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        wide = config.hidden
        self.img_in = nn.Linear(config.latent, wide)
        self.txt_in = nn.Linear(config.context, wide)
        self.time_in = Embedder(SINUSOIDS, wide)
        self.vector_in = Embedder(config.pooled, wide)
        self.guidance_in = Embedder(SINUSOIDS, wide) if config.guidance else None
        self.double_blocks = nn.ModuleList(DoubleBlock(wide, config.mlp) for _ in range(config.double_blocks))
        self.single_blocks = nn.ModuleList(SingleBlock(wide, config.mlp) for _ in range(config.single_blocks))
        self.final_layer = FinalLayer(wide, config.latent)

    def enable_gradient_checkpointing(self) -> None:
        """From now on the backward pass computes each block again, and keeps only what goes into it."""
        self.gradient_checkpointing = True

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: Tensor,
        pooled: Tensor,
        guidance: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The velocity (B, C, h, w) of `latents` in that shape, h and w even, in their precision.

        `timesteps` (B,): 0 (picture) to 1000 (noise). `context` (B, T, width) and `pooled` (B, width): the text.
        `guidance` (B,): a scale, about 1 to 5, which a model without guidance ignores. `mask` (B, T), bool: false for
        places of the context that nothing looks at; None where all are seen.
        """
        rows, columns = latents.shape[2] // PATCH, latents.shape[3] // PATCH
        vec = self._condition(timesteps, pooled, guidance)
        img, txt = self.img_in(packed(latents)), self.txt_in(context)
        rope = rotations(txt.shape[1], rows, columns).to(latents.device)
        if mask is not None:
            seen = mask.to(img.device, torch.bool)
            mask = torch.cat([seen, seen.new_ones(len(img), img.shape[1])], 1)[:, None, None]
        for block in self.double_blocks:
            img, txt = self._run(block, img, txt, vec, rope, mask)
        both = torch.cat([txt, img], 1)
        for block in self.single_blocks:
            both = self._run(block, both, vec, rope, mask)
        return unpacked(self.final_layer(both[:, txt.shape[1] :], vec), rows, columns)

    def _condition(self, timesteps: Tensor, pooled: Tensor, guidance: Tensor | None) -> Tensor:
        """What modulates every block (B, hidden): the timestep, the guidance scale and CLIP's summary of the text."""
        vec = self.time_in(sinusoids(timesteps).to(pooled)) + self.vector_in(pooled)
        if self.guidance_in is None:
            return vec
        if guidance is None:
            raise ValueError("a model with guidance is called without a guidance scale")
        return vec + self.guidance_in(sinusoids(guidance * 1000).to(pooled))

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


class DoubleBlock(nn.Module):
    """Text and picture look at each other, each with weights of its own.

    `img` (B, N, hidden) and `txt` (B, T, hidden) come back changed; `vec` (B, hidden) modulates both. `rope`
    (T + N, 64, 2) and `mask` (B, 1, 1, T + N) are those of `attended`.
    """

    def __init__(self, hidden: int, mlp: int):
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(hidden, 6), Modulation(hidden, 6)
        self.img_attn, self.txt_attn = Attention(hidden), Attention(hidden)
        self.img_mlp, self.txt_mlp = (
            nn.Sequential(nn.Linear(hidden, mlp), GELU(), nn.Linear(mlp, hidden)) for _ in range(2)
        )

    def forward(
        self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        img_mod, txt_mod = self.img_mod(vec), self.txt_mod(vec)
        of_img = self.img_attn.heads(modulated(img, *img_mod[:2]))
        of_txt = self.txt_attn.heads(modulated(txt, *txt_mod[:2]))
        q, k, v = (torch.cat(each, 2) for each in zip(of_txt, of_img, strict=True))
        txt_seen, img_seen = attended(q, k, v, rope, mask).split([txt.shape[1], img.shape[1]], 1)
        img = img + img_mod[2] * self.img_attn.proj(img_seen)
        img = img + img_mod[5] * self.img_mlp(modulated(img, *img_mod[3:5]))
        txt = txt + txt_mod[2] * self.txt_attn.proj(txt_seen)
        txt = txt + txt_mod[5] * self.txt_mlp(modulated(txt, *txt_mod[3:5]))
        return finite(img), finite(txt)


class SingleBlock(nn.Module):
    """Attention and MLP beside each other, on text and picture as one sequence `x` (B, T + N, hidden)."""

    def __init__(self, hidden: int, mlp: int):
        super().__init__()
        self.hidden = hidden
        self.linear1 = nn.Linear(hidden, 3 * hidden + mlp)
        self.linear2 = nn.Linear(hidden + mlp, hidden)
        self.norm = QKNorm()
        self.modulation = Modulation(hidden, 3)

    def forward(self, x: Tensor, vec: Tensor, rope: Tensor, mask: Tensor | None = None) -> Tensor:
        shift, scale, gate = self.modulation(vec)
        projected = self.linear1(modulated(x, shift, scale))
        qkv, mlp = projected.split([3 * self.hidden, projected.shape[-1] - 3 * self.hidden], -1)
        q, k, v = self.norm(qkv)
        seen = attended(q, k, v, rope, mask)
        return finite(x + gate * self.linear2(torch.cat([seen, F.gelu(mlp, approximate="tanh")], -1)))


class Attention(nn.Module):
    def __init__(self, hidden: int):
        super().__init__()
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.norm = QKNorm()
        self.proj = nn.Linear(hidden, hidden)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, hidden) -> queries, keys, values (B, heads, T, 128), not turned to their places yet."""
        return self.norm(self.qkv(x))


class QKNorm(nn.Module):
    """Root mean square norms of each head's queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.query_norm = RMSNorm(HEAD)
        self.key_norm = RMSNorm(HEAD)

    def forward(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, 3 x hidden) -> queries, keys, values (B, heads, T, 128)."""
        q, k, v = qkv.unflatten(-1, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.query_norm(q), self.key_norm(k), v


class RMSNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float()
        return (exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + EPS) * self.scale.float()).to(x.dtype)


class Modulation(nn.Module):
    """`count` vectors (B, 1, hidden) that shift, scale and gate a block's streams."""

    def __init__(self, hidden: int, count: int):
        super().__init__()
        self.count = count
        self.lin = nn.Linear(hidden, count * hidden)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(vec))[:, None].chunk(self.count, -1)


class Embedder(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.in_layer = nn.Linear(width, hidden)
        self.out_layer = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class FinalLayer(nn.Module):
    def __init__(self, hidden: int, latent: int):
        super().__init__()
        self.linear = nn.Linear(hidden, latent)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, -1)
        return self.linear(modulated(x, shift, scale))


class GELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, T, hidden), each token to mean 0 and variance 1, then scaled and shifted (B, 1, hidden)."""
    return (1 + scale) * F.layer_norm(x, x.shape[-1:], eps=EPS) + shift


def finite(x: Tensor) -> Tensor:
    """Half precision's largest number for what is beyond it: the text's stream grows so far in the last blocks."""
    return x.clamp(-HALF, HALF) if x.dtype == torch.float16 else x


def attended(q: Tensor, k: Tensor, v: Tensor, rope: Tensor, mask: Tensor | None) -> Tensor:
    """q, k, v (B, heads, T, 128), mask (B, 1, 1, T) of the keys that are seen -> (B, T, hidden)."""
    q, k = rotated(q, rope), rotated(k, rope)
    seen = attend(q, k, v) if mask is None else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return seen.transpose(1, 2).flatten(2)


def rotated(x: Tensor, rope: Tensor) -> Tensor:
    """Each pair of numbers next to each other in x (B, heads, T, 128), turned by its angle; rope (T, 64, 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(rope)).flatten(-2).to(x.dtype)


def rotations(text: int, rows: int, columns: int) -> Tensor:
    """Cosine and sine (T, 64, 2), float32 on the CPU, of the angles of `text` tokens and of rows x columns of latents.

    All of the text stands at (0, 0, 0), a token of latents at (0, row, column).
    """
    places = torch.zeros(text + rows * columns, len(AXES), dtype=torch.float64)
    places[text:, 1] = torch.arange(rows).repeat_interleave(columns)
    places[text:, 2] = torch.arange(columns).repeat(rows)
    speeds = [THETA ** -(torch.arange(0, width, 2, dtype=torch.float64) / width) for width in AXES]
    angles = torch.cat([place[:, None] * speed for place, speed in zip(places.T, speeds, strict=True)], -1)
    return torch.stack([angles.cos(), angles.sin()], -1).float()


def sinusoids(numbers: Tensor) -> Tensor:
    """(B,) -> (B, 256), float32: cosines, then sines, of speeds from 1 down to nearly 1 / THETA."""
    half = SINUSOIDS // 2
    speeds = torch.exp(torch.arange(half, dtype=torch.float32, device=numbers.device) * (-math.log(THETA) / half))
    angles = numbers.float()[:, None] * speeds
    return torch.cat([angles.cos(), angles.sin()], -1)


def packed(latents: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h/2 x w/2, 4C): a token is the 2 x 2 latent pixels of a channel, then those of the next."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpacked(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """The way back."""
    patches = tokens.unflatten(-1, (-1, PATCH, PATCH)).unflatten(1, (rows, columns))
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

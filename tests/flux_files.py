"""Makes a Flux model with random weights in files laid out as the real ones are: a miniature, or any widths given.

    python -m tests.flux_files FOLDER [--variant dev] [--dtype bf16] [--layout bare]

A transformer, CLIP-L, T5, the autoencoder and T5's tokenizer; or the first four in one file.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
Tensors = dict[str, Tensor]

TRANSFORMER, CLIP, T5, AE = (
    "model.diffusion_model.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.t5xxl.transformer.",
    "vae.",
)
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "scaled fp8": torch.float16,  # of what is not scaled
    "nf4": torch.float32,  # of what is not packed
}
HEAD = 128
VOCABULARY = 400  # T5's rows; the tokenizer has fewer words
NF4_BLOCK = 64
NF4_VALUES = torch.tensor(  # Dettmers et al. 2023, arXiv 2305.14314, appendix E
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """Of a transformer; `context` and `pooled` are T5's and CLIP-L's widths too, which must be multiples of 64."""

    hidden: int = HEAD
    mlp: int = 4 * HEAD
    double: int = 1
    single: int = 2
    context: int = 64
    pooled: int = 64


MINIATURE = Sizes()
REAL = Sizes(3072, 12288, 19, 38, 4096, 768)


@dataclass(frozen=True)
class FluxFiles:
    transformer: Path
    clip_l: Path
    t5xxl: Path
    ae: Path
    t5_tokenizer: Path

    @property
    def parts(self) -> dict[str, Path]:
        """By the names of their settings; in an all-in-one file they are that file itself."""
        return {"clip_l": self.clip_l, "t5xxl": self.t5xxl, "ae": self.ae, "t5_tokenizer": self.t5_tokenizer}

    @property
    def settings(self) -> dict[str, str]:
        """For `Config`: the base and the parts that lie beside it."""
        beside = {name: str(path) for name, path in self.parts.items() if path != self.transformer}
        return {"base_model": str(self.transformer), **beside}


def make_flux(
    folder: Path,
    variant: str = "dev",
    *,
    dtype: str = "fp32",
    layout: str = "bare",
    t5_dtype: str = "fp32",
    clip_dtype: str = "fp16",
    sizes: Sizes = MINIATURE,
    seed: int = 0,
    name: str = "flux",
) -> FluxFiles:
    """`layout`: "bare", "prefixed" or "all-in-one", in which the parts have no files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    transformer = transformer_tensors(sizes, variant, dtype, seed)
    parts = {
        "clip_l": (CLIP, clip_tensors(sizes.pooled, clip_dtype, seed + 1)),
        "t5xxl": (T5, t5_tensors(sizes.context, t5_dtype, seed + 2)),
        "ae": (AE, ae_tensors(seed + 3)),
    }
    whole = folder / f"{name}.safetensors"
    tensors = _below("" if layout == "bare" else TRANSFORMER, transformer)
    paths = {part: whole if layout == "all-in-one" else folder / f"{part}.safetensors" for part in parts}
    for part, (prefix, found) in parts.items():
        if layout == "all-in-one":
            tensors |= _below(prefix, found)
        else:
            save_file(found, paths[part])
    save_file(tensors, whole)
    return FluxFiles(whole, **paths, t5_tokenizer=write_tokenizer(folder / "tokenizer.json"))


def transformer_tensors(
    sizes: Sizes = MINIATURE, variant: str = "dev", dtype: str = "fp32", seed: int = 0
) -> dict[str, Tensor]:
    """In the original layout. fp8 files have all their numbers in fp8; NF4 files pack the Linear layers' weights."""
    tensors = _random(transformer_shapes(sizes, variant == "dev"), seed)
    if dtype not in ROUNDED:
        return _cast(tensors, dtype)
    rounded = {name for name, tensor in tensors.items() if tensor.ndim == 2}
    return _rounded(tensors, dtype, rounded)


def clip_tensors(width: int = 64, dtype: str = "fp16", seed: int = 1) -> dict[str, Tensor]:
    """CLIP-L of two layers under transformers' names, with the numbers that are written with it and never read."""
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    return _cast(_random(dict(_clip_shapes(width)), seed), dtype) | ids


def t5_tensors(width: int = 64, dtype: str = "fp32", seed: int = 2) -> dict[str, Tensor]:
    """T5 v1.1's encoder of two layers under transformers' names; in fp8 the embeddings and norms stay in fp16."""
    tensors = _random(dict(_t5_shapes(width)), seed)
    if dtype in ROUNDED:
        kept = ("norm", "shared", "bias")
        return _rounded(tensors, dtype, {name for name in tensors if not any(piece in name for piece in kept)})
    if dtype != "fp8":
        return _cast(tensors, dtype)
    exact = {name: tensor.half() for name, tensor in tensors.items() if "norm" in name or "shared" in name}
    return _cast(tensors, "fp8") | exact


def ae_tensors(seed: int = 3, channels: int = 16, width: int = 32) -> dict[str, Tensor]:
    """The autoencoder in the original layout, without the convolutions about the latents that Stable Diffusion has."""
    return _random(dict(_ae_shapes(channels, width)), seed)


def write_tokenizer(path: Path) -> Path:
    """A tokenizer as T5's: pieces of words by unigrams, a mark for the space before a word, `</s>` at the end."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?'\"()-_/&"
    words = [
        "a",
        "an",
        "the",
        "of",
        "in",
        "on",
        "at",
        "with",
        "and",
        "is",
        "photo",
        "blob",
        "red",
        "green",
        "blue",
        "grey",
    ]
    pieces = [*(f"▁{word}" for word in words), "ing", "ed", "er", "s", "th"]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(piece, -4.0 - 0.01 * place) for place, piece in enumerate(pieces)]
    vocabulary += [(letter, -7.0 - 0.01 * place) for place, letter in enumerate(letters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path


def nf4(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A weight (out, in) as bitsandbytes packs it: blocks of 64 by their largest, two numbers to a byte."""
    blocks = weight.flatten().view(-1, NF4_BLOCK).float()
    largest = blocks.abs().amax(1)
    nearest = (blocks / largest[:, None])[..., None].sub(NF4_VALUES).abs().argmin(-1).to(torch.uint8).view(-1, 2)
    state = {"quant_type": "nf4", "blocksize": NF4_BLOCK, "dtype": "bfloat16", "shape": list(weight.shape)}
    return {
        name: (nearest[:, 0] << 4 | nearest[:, 1])[:, None],
        f"{name}.absmax": largest,
        f"{name}.quant_map": NF4_VALUES.clone(),
        f"{name}.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }


def scaled(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A weight as ComfyUI writes it in fp8: its largest is e4m3's largest, and one number says by how much that is."""
    scale = weight.abs().amax() / 448
    return {name: (weight / scale).to(torch.float8_e4m3fn), f"{name.removesuffix('.weight')}.scale_weight": scale}


ROUNDED = {"nf4": nf4, "scaled fp8": scaled}


def transformer_shapes(sizes: Sizes = MINIATURE, guidance: bool = True) -> Shapes:
    """Each tensor's name in the original layout, without prefix, and its shape."""
    wide, latent = sizes.hidden, 64
    shapes: Shapes = {}
    shapes |= _linear("img_in", wide, latent) | _linear("txt_in", wide, sizes.context)
    embedded = {"time_in": 256, "vector_in": sizes.pooled} | ({"guidance_in": 256} if guidance else {})
    for name, inside in embedded.items():
        shapes |= _linear(f"{name}.in_layer", wide, inside) | _linear(f"{name}.out_layer", wide, wide)
    for block in range(sizes.double):
        for stream in ("img", "txt"):
            start = f"double_blocks.{block}.{stream}"
            shapes |= _linear(f"{start}_mod.lin", 6 * wide, wide)
            shapes |= _linear(f"{start}_attn.qkv", 3 * wide, wide) | _linear(f"{start}_attn.proj", wide, wide)
            shapes |= {f"{start}_attn.norm.{each}_norm.scale": (HEAD,) for each in ("query", "key")}
            shapes |= _linear(f"{start}_mlp.0", sizes.mlp, wide) | _linear(f"{start}_mlp.2", wide, sizes.mlp)
    for block in range(sizes.single):
        start = f"single_blocks.{block}"
        shapes |= _linear(f"{start}.linear1", 3 * wide + sizes.mlp, wide)
        shapes |= _linear(f"{start}.linear2", wide, wide + sizes.mlp)
        shapes |= {f"{start}.norm.{each}_norm.scale": (HEAD,) for each in ("query", "key")}
        shapes |= _linear(f"{start}.modulation.lin", 3 * wide, wide)
    return (
        shapes | _linear("final_layer.linear", latent, wide) | _linear("final_layer.adaLN_modulation.1", 2 * wide, wide)
    )


def _clip_shapes(width: int, layers: int = 2) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "text_model.embeddings.token_embedding.weight", (49_408, width)
    yield "text_model.embeddings.position_embedding.weight", (77, width)
    for layer in range(layers):
        start = f"text_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{start}.self_attn.{part}", width, width).items()
        yield from _linear(f"{start}.mlp.fc1", 4 * width, width).items()
        yield from _linear(f"{start}.mlp.fc2", width, 4 * width).items()
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm(f"{start}.{norm}", width).items()
    yield from _norm("text_model.final_layer_norm", width).items()


def _t5_shapes(width: int, layers: int = 2) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "shared.weight", (VOCABULARY, width)
    for layer in range(layers):
        start = f"encoder.block.{layer}.layer"
        for part in ("q", "k", "v", "o"):
            yield f"{start}.0.SelfAttention.{part}.weight", (width, width)
        if layer == 0:
            yield f"{start}.0.SelfAttention.relative_attention_bias.weight", (32, width // 64)
        for part in ("wi_0", "wi_1"):
            yield f"{start}.1.DenseReluDense.{part}.weight", (2 * width, width)
        yield f"{start}.1.DenseReluDense.wo.weight", (width, 2 * width)
        for place in range(2):
            yield f"{start}.{place}.layer_norm.weight", (width,)
    yield "encoder.final_layer_norm.weight", (width,)


def _ae_shapes(channels: int, width: int, levels: int = 4, resnets: int = 2) -> Iterator[tuple[str, tuple[int, ...]]]:
    def resnet(start: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        for place in (1, 2):
            yield from _norm(f"{start}.norm{place}", width).items()
            yield from _convolution(f"{start}.conv{place}", width, width).items()

    ends = {"encoder": (3, 2 * channels, "down", resnets), "decoder": (channels, 3, "up", resnets + 1)}
    for side, (inside, outside, way, blocks) in ends.items():
        yield from _convolution(f"{side}.conv_in", width, inside).items()
        for level in range(levels):
            for block in range(blocks):
                yield from resnet(f"{side}.{way}.{level}.block.{block}")
            if level != (levels - 1 if way == "down" else 0):
                yield from _convolution(f"{side}.{way}.{level}.{way}sample.conv", width, width).items()
        for place in (1, 2):
            yield from resnet(f"{side}.mid.block_{place}")
        yield from _norm(f"{side}.mid.attn_1.norm", width).items()
        for part in ("q", "k", "v", "proj_out"):
            yield from _convolution(f"{side}.mid.attn_1.{part}", width, width, 1).items()
        yield from _norm(f"{side}.norm_out", width).items()
        yield from _convolution(f"{side}.conv_out", outside, width).items()


def _linear(name: str, outside: int, inside: int) -> Shapes:
    return {f"{name}.weight": (outside, inside), f"{name}.bias": (outside,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _convolution(name: str, outside: int, inside: int, kernel: int = 3) -> Shapes:
    return {f"{name}.weight": (outside, inside, kernel, kernel), f"{name}.bias": (outside,)}


def _random(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """Weights within torch's bound for a Linear, norms about 1, small biases; embeddings as CLIP's and T5's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        if "embedding" in name or name == "shared.weight":
            return torch.randn(shape, generator=generator) * (0.02 if "embedding" in name else 1.0)
        drawn = torch.rand(shape, generator=generator) * 2 - 1
        if len(shape) > 1:
            return drawn / math.sqrt(math.prod(shape[1:]))
        return drawn * 0.05 + (1.0 if "norm" in name and name.endswith(("weight", "scale")) else 0.0)

    return {name: draw(name, shape) for name, shape in shapes.items()}


def _rounded(tensors: Mapping[str, Tensor], dtype: str, names: Collection[str]) -> dict[str, Tensor]:
    """`names` as they are rounded, and the mark that a file with scales has."""
    found: Tensors = {"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)} if dtype == "scaled fp8" else {}
    for name, tensor in tensors.items():
        found |= ROUNDED[dtype](name, tensor) if name in names else _cast({name: tensor}, dtype)
    return found


def _cast(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    return {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", choices=("dev", "schnell"), default="dev")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--layout", choices=("bare", "prefixed", "all-in-one"), default="bare")
    chosen = parser.parse_args()
    files = make_flux(chosen.folder, chosen.variant, dtype=chosen.dtype, layout=chosen.layout)
    for name, path in {"transformer": files.transformer, **files.parts}.items():
        print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()

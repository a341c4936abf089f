"""Florence-2's files with the signatures of the real ones, and a handful of words; the decoder has a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tests.tagging.onnx_files import save

WIDTH, HEADS = 4, 2
WORDS = "<s> <pad> </s> Describe in detail what is shown the image . a dog cat on grass and snow runs".split()  # noqa: SIM905
RNG = np.random.default_rng(7)
EMBEDDINGS = RNG.standard_normal((len(WORDS), WIDTH)).astype(np.float32)
SIGHT = RNG.standard_normal((3, WIDTH)).astype(np.float32)
SPEECH = RNG.standard_normal((WIDTH, len(WORDS))).astype(np.float32)
SPEECH[:, 0] = -SPEECH[:, 2]  # "<s>" is never likely where the end is
LAYERS = ("past_key_values.0", "present.0")


def write_florence(folder: Path) -> Path:
    """All of them, into a tagger's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    write_readers(folder / "onnx")
    write_decoder(folder / "onnx" / "decoder_model_merged.onnx")
    return folder


def write_tokenizer(path: Path) -> None:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>"])
    tokenizer.save(str(path))


def write_readers(folder: Path) -> None:
    """Vision: the mean of each channel, as one position. Encoder: what it is given, where the mask is 1."""
    save(
        folder / "vision_encoder.onnx",
        [
            helper.make_node("ReduceMean", ["pixel_values", "axes"], ["means"], keepdims=0),
            helper.make_node("MatMul", ["means", "sight"], ["seen"]),
            helper.make_node("Unsqueeze", ["seen", "one"], ["image_features"]),
        ],
        {"pixel_values": ["batch", 3, 768, 768]},
        {"image_features": ["batch", 1, WIDTH]},
        {"axes": np.array([2, 3]), "one": np.array([1]), "sight": SIGHT},
    )
    save(
        folder / "embed_tokens.onnx",
        [helper.make_node("Gather", ["embeddings", "input_ids"], ["inputs_embeds"])],
        {"input_ids": ["batch", "length"]},
        {"inputs_embeds": ["batch", "length", WIDTH]},
        {"embeddings": EMBEDDINGS},
        {"input_ids": TensorProto.INT64},
    )
    save(
        folder / "encoder_model.onnx",
        [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "two"], ["column"]),
            helper.make_node("Mul", ["inputs_embeds", "column"], ["last_hidden_state"]),
        ],
        {"attention_mask": ["batch", "length"], "inputs_embeds": ["batch", "length", WIDTH]},
        {"last_hidden_state": ["batch", "length", WIDTH]},
        {"two": np.array([2])},
        {"attention_mask": TensorProto.INT64},
    )


def write_decoder(path: Path) -> None:
    """Logits: the sum over all keys of tokens, and the mean over all of the encoder's, times SPEECH."""
    past, present = LAYERS
    cached = [f"{side}.{kind}" for side in ("decoder", "encoder") for kind in ("key", "value")]
    heads: list[int | str] = ["batch", HEADS, "length", WIDTH // HEADS]
    nodes = [
        helper.make_node("Cast", ["encoder_attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["column"]),
        helper.make_node("Mul", ["encoder_hidden_states", "column"], ["states"]),
        *_split_into_heads("inputs_embeds", "new"),
        helper.make_node("Concat", [f"{past}.decoder.key", "new"], [f"{present}.decoder.key"], axis=2),
        helper.make_node("Concat", [f"{past}.decoder.value", "new"], [f"{present}.decoder.value"], axis=2),
        *_split_into_heads("states", "fresh"),
        # With the cache the encoder's keys are taken from it, and empty ones are given back, as optimum exports it.
        _either("used", f"{past}.encoder.key", "fresh"),
        _either(f"{present}.encoder.key", "empty", "fresh"),
        _either(f"{present}.encoder.value", "empty", "fresh"),
        helper.make_node("ReduceSum", [f"{present}.decoder.key", "two"], ["said"], keepdims=0),
        helper.make_node("ReduceMean", ["used", "two"], ["seen"], keepdims=0),
        helper.make_node("Add", ["said", "seen"], ["both"]),
        helper.make_node("Reshape", ["both", "flat"], ["state"]),
        helper.make_node("MatMul", ["state", "speech"], ["logits"]),
    ]
    constants = {
        "two": np.array([2]), "flat": np.array([0, 1, WIDTH]), "split": np.array([0, -1, HEADS, WIDTH // HEADS]),
        "empty": np.zeros((0, HEADS, 1, WIDTH // HEADS), np.float32), "speech": SPEECH,
    }  # fmt: skip
    save(
        path,
        nodes,
        {
            "encoder_attention_mask": ["batch", "positions"],
            "encoder_hidden_states": ["batch", "positions", WIDTH],
            "inputs_embeds": ["batch", "count", WIDTH],
            **{f"{past}.{name}": heads for name in cached},
            "use_cache_branch": [1],
        },
        {"logits": ["batch", 1, len(WORDS)], **{f"{present}.{name}": heads for name in cached}},
        constants,
        {"encoder_attention_mask": TensorProto.INT64, "use_cache_branch": TensorProto.BOOL},
    )


def _split_into_heads(given: str, wanted: str) -> list:
    return [
        helper.make_node("Reshape", [given, "split"], [f"{given}_split"]),
        helper.make_node("Transpose", [f"{given}_split"], [wanted], perm=[0, 2, 1, 3]),
    ]


def _either(wanted: str, with_cache: str, without: str):
    def branch(name: str):
        output = helper.make_tensor_value_info(f"{wanted}_{name}", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node("Identity", [name], [f"{wanted}_{name}"])], name, [], [output])

    return helper.make_node(
        "If", ["use_cache_branch"], [wanted], then_branch=branch(with_cache), else_branch=branch(without)
    )

"""Florence-2: a few sentences about a picture, from its ONNX export. Xiao et al., https://arxiv.org/abs/2311.06242"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lora_trainer.tagging.onnx_model import Notice, batch_size, open_model
from lora_trainer.tagging.weights import read_tokenizer
from lora_trainer.tagging.wording import TagOptions

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

# Of the model's own processor and generation settings.
QUESTION = "Describe in detail what is shown in the image."
SIDE = 768
MEAN, DEVIATION = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)], dtype=np.float32)
BEGINNING, END = np.array([[2, 0]], dtype=np.int64), 2  # tokens
MOST_TOKENS = 200
BATCH_ON_GPU = 8


@dataclass(frozen=True)
class Florence:
    """Pictures and the question go through an encoder; a decoder answers, one token at a time."""

    vision: InferenceSession
    embedder: InferenceSession
    encoder: InferenceSession
    decoder: InferenceSession
    tokenizer: Tokenizer

    @property
    def batch_size(self) -> int:
        return batch_size(self.vision, BATCH_ON_GPU)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """The picture (RGB) as the model takes it: float32 (3, SIDE, SIDE), normalised, its shape not kept."""
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        return ((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)

    def caption(self, pixels: Sequence[np.ndarray]) -> list[str]:
        states = self._encode(np.stack(pixels))
        answers = generate(Decoder(self.embedder, self.decoder, states), len(pixels), MOST_TOKENS)
        return [self.tokenizer.decode(answer.tolist()).strip() for answer in answers]

    def _encode(self, pixels: np.ndarray) -> np.ndarray:
        """What the decoder looks at, (B, positions, width), from pictures (B, 3, SIDE, SIDE)."""
        question = np.array([self.tokenizer.encode(QUESTION).ids] * len(pixels), dtype=np.int64)
        seen = _run(self.vision, pixel_values=pixels)
        given = np.concatenate([seen, _run(self.embedder, input_ids=question)], axis=1)
        return _run(self.encoder, inputs_embeds=given, attention_mask=_all_of(given))


class Decoder:
    """Tokens in, logits of the next one out; keys and values of what it has seen are kept between calls."""

    def __init__(self, embedder: InferenceSession, session: InferenceSession, states: np.ndarray) -> None:
        self._embedder, self._session, self._states = embedder, session, states
        self._wanted = [output.name for output in session.get_outputs()]
        self._kept: dict[str, np.ndarray] = {}

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        """Logits (B, vocabulary) after the tokens (B, count) that have come since the last call."""
        found = self._session.run(
            self._wanted,
            {
                "inputs_embeds": _run(self._embedder, input_ids=tokens),
                "encoder_hidden_states": self._states,
                "encoder_attention_mask": _all_of(self._states),
                "use_cache_branch": np.array([bool(self._kept)]),
                **(self._kept or self._nothing(len(tokens))),
            },
        )
        new = {name.replace("present", "past_key_values"): value for name, value in zip(self._wanted, found)}
        logits: np.ndarray = new.pop("logits")
        # Those of the encoder do not change; from the second call on the model gives empty ones in their place.
        self._kept |= {name: value for name, value in new.items() if not self._kept or ".decoder." in name}
        return logits[:, -1]

    def _nothing(self, pictures: int) -> Mapping[str, np.ndarray]:
        """Empty keys and values, (B, heads, 0, width of a head)."""
        shapes = {given.name: given.shape for given in self._session.get_inputs() if given.name.startswith("past")}
        return {name: np.zeros((pictures, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items()}


def generate(decoder: Decoder, pictures: int, most: int) -> np.ndarray:
    """The likeliest next token again and again, none that repeats three in a row: (B, count <= most), ended by END."""
    tokens = new = np.tile(BEGINNING, (pictures, 1))
    ended = np.zeros(pictures, dtype=bool)
    while not ended.all() and tokens.shape[1] < most:
        logits = decoder(new)
        for row, answer in zip(logits, tokens.tolist()):
            row[repeats(answer)] = -np.inf
        best = np.where(ended, END, logits.argmax(axis=1))
        ended |= best == END
        new = best[:, None]
        tokens = np.concatenate([tokens, new], axis=1)
    return tokens


def repeats(answer: Sequence[int]) -> list[int]:
    """The tokens that would end the answer with three that it has had in that order."""
    return [third for *two, third in zip(answer, answer[1:], answer[2:]) if two == list(answer[-2:])]


def load(folder: Path, options: TagOptions, notice: Notice) -> Florence:
    """The model of the folder's four ONNX files, each of them tried. Raises BadInput where a file is damaged."""
    tokenizer, onnx = read_tokenizer(folder / "tokenizer.json"), folder / "onnx"
    blank = np.zeros((1, 3, SIDE, SIDE), dtype=np.float32)
    vision = open_model(onnx / "vision_encoder.onnx", notice, lambda session: _run(session, pixel_values=blank))
    embedder = open_model(onnx / "embed_tokens.onnx", notice, lambda session: _run(session, input_ids=BEGINNING))
    given = _run(embedder, input_ids=BEGINNING)
    encoder = open_model(
        onnx / "encoder_model.onnx",
        notice,
        lambda session: _run(session, inputs_embeds=given, attention_mask=_all_of(given)),
    )
    decoder = open_model(
        onnx / "decoder_model_merged.onnx",
        notice,
        lambda session: generate(Decoder(embedder, session, given), 1, most=4),
    )
    return Florence(vision, embedder, encoder, decoder, tokenizer)


def _run(session: InferenceSession, **given: np.ndarray) -> np.ndarray:
    found: np.ndarray = session.run([session.get_outputs()[0].name], given)[0]
    return found


def _all_of(states: np.ndarray) -> np.ndarray:
    """A mask that leaves nothing out, int64 (B, positions)."""
    return np.ones(states.shape[:2], dtype=np.int64)

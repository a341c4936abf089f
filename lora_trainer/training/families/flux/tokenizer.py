"""T5's tokenizer, read from the tokenizer.json that is published with it: no network is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from lora_trainer.config.problems import BadInput
from lora_trainer.inspecting.header import bad_model

EOS, PAD = "</s>", "<pad>"


@dataclass(frozen=True)
class T5Tokenizer:
    """Texts as T5's tokens, in rows of one length."""

    tokenizer: Tokenizer

    def __call__(self, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
        """(B, length) token ids, each text's end marked and padding behind it; and where they are no padding (bool).

        A text that is longer loses its end.
        """
        eos, pad = self.tokenizer.token_to_id(EOS), self.tokenizer.token_to_id(PAD)
        found = [self.tokenizer.encode(text, add_special_tokens=False).ids[: length - 1] + [eos] for text in texts]
        counts = torch.tensor([len(ids) for ids in found])
        padded = torch.tensor([ids + [pad] * (length - len(ids)) for ids in found])
        return padded, torch.arange(length) < counts[:, None]


def read_tokenizer(path: Path) -> T5Tokenizer:
    """BadInput, of the setting t5_tokenizer, where the file is no tokenizer that ends and pads texts as T5's does."""
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the package raises nothing narrower
        raise _bad(path) from error
    if None in (tokenizer.token_to_id(EOS), tokenizer.token_to_id(PAD)):
        raise _bad(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return T5Tokenizer(tokenizer)


def _bad(path: Path) -> BadInput:
    return bad_model(path, "is no tokenizer of T5", "Choose the tokenizer.json of T5.", "t5_tokenizer")

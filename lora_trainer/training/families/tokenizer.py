"""The CLIP tokenizer, built from the vocabulary file that an installed CLIP package carries: no network is needed."""

from __future__ import annotations

import gzip
import importlib.util
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizerFast

from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.inspecting.facts import EOS_ID

VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
PACKAGES = ("open_clip", "clip")
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_MERGES = 49_152 - 256 - 2  # CLIP took this many of the file's merges
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@lru_cache(maxsize=2)
def clip_tokenizer(pad_token_id: int = EOS_ID) -> CLIPTokenizerFast:
    """OpenAI CLIP's tokenizer: 49,408 tokens, BOS 49406, EOS 49407, 77 tokens a text.

    Texts are padded with EOS for CLIP-L, and with token 0 for SD2's and SDXL's open_clip encoders.
    BadInput if neither open_clip nor clip is installed.
    """
    vocabulary, merges = _read_vocabulary(_vocabulary_file())
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token=EOS))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        sep=(EOS, vocabulary[EOS]), cls=(BOS, vocabulary[BOS]), trim_offsets=False, add_prefix_space=False
    )
    built = CLIPTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=EOS,
        model_max_length=77,
        clean_up_tokenization_spaces=False,
    )
    # Token 0 is the letter "!": named as a pad *token* it would also be cut out of every text that has one.
    built.pad_token_id = pad_token_id
    return built


def _vocabulary_file() -> Path:
    """The vocabulary file inside open_clip or clip, found without importing the package."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (file := Path(folder) / VOCABULARY_FILE).is_file():
                return file
    raise BadInput(
        Problem(
            setting="packages",
            value=VOCABULARY_FILE,
            problem="the CLIP vocabulary is missing, because neither open_clip nor clip is installed",
            remedy="Install it with `pip install open_clip_torch`.",
        )
    )


def _read_vocabulary(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The token -> id table and the merges in order of rank; the file's first line is a version note."""
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    letters = _byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges), BOS, EOS]
    return {token: index for index, token in enumerate(tokens)}, merges


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level BPE: printable Latin-1 as itself and first in order,
    each other byte as the next letter from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(0x100 + index) for index in range(others)]

from __future__ import annotations

import importlib.util

import pytest
from transformers import CLIPTokenizer

from lora_trainer.config import BadInput
from lora_trainer.training.families import tokenizer
from lora_trainer.training.families.tokenizer import clip_tokenizer

BOS, EOS = 49_406, 49_407


# Recorded from OpenAI's CLIP.
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),
        ("a diagram", [320, 22697]),
        ("a dog", [320, 1929]),
        ("hello world!", [3306, 1002, 256]),
        # By transformers' slow tokenizer with ftfy, as CLIP has it; without ftfy it takes accents off.
        (
            "日本語 café naïve 😀 Ünïcödé",
            [39121, 44353, 34002, 508, 15304, 1097, 35689, 563, 7334, 6522, 77, 35689, 66, 7255, 67, 4166],
        ),
    ],
)
def test_known_ids(text, ids):
    assert clip_tokenizer()(text).input_ids == [BOS, *ids, EOS]


def test_the_vocabulary_is_clips():
    built = clip_tokenizer()

    assert len(built) == 49_408
    assert (built.bos_token_id, built.eos_token_id, built.pad_token_id) == (BOS, EOS, EOS)
    assert built.model_max_length == 77


@pytest.mark.parametrize(
    "text",
    [
        "1girl, long_hair, (smile:1.2), it's 42 years!!",
        "  Don't   STOP\n\tnow ",
        "score_9, score_8_up, <lora:x:1>, a.b/c\\d",
        "",
    ],
)
def test_transformers_slow_tokenizer_agrees(tmp_path, text):
    vocabulary, merges = tokenizer._read_vocabulary(tokenizer._vocabulary_file())
    (tmp_path / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *map(" ".join, merges)]) + "\n", encoding="utf-8", newline="\n"
    )
    clip_tokenizer().backend_tokenizer.model.save(str(tmp_path))  # writes vocab.json, and merges.txt as it has them
    slow = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))

    assert slow.get_vocab() == vocabulary
    assert clip_tokenizer()(text).input_ids == slow(text).input_ids


def test_an_open_clip_encoder_pads_with_zero_and_an_exclamation_mark_stays_a_word():
    padded = clip_tokenizer(0)("hello world!", padding="max_length", max_length=7).input_ids

    assert padded == [BOS, 3306, 1002, 256, EOS, 0, 0]


def test_the_package_is_found_without_importing_it_and_named_when_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(BadInput, match="pip install open_clip_torch"):
        tokenizer._vocabulary_file()

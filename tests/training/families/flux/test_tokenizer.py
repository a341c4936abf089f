"""T5's tokens against those of transformers' tokenizer, made from the same file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import T5TokenizerFast

from lora_trainer.config.problems import BadInput
from lora_trainer.training.families.flux.tokenizer import read_tokenizer
from tests.flux_files import write_tokenizer

TEXTS = (
    "a photo of a blob, red, on the left",
    "",
    "  two  spaces and a\nline  ",
    "ﬁne Ünïcode 赤 🙂 and </s> inside",
    "a very long text " * 20,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("length", [8, 64, 512])
def test_texts_become_the_tokens_of_transformers(file: Path, length: int) -> None:
    theirs = T5TokenizerFast(tokenizer_file=str(file))(
        list(TEXTS), max_length=length, padding="max_length", truncation=True, return_tensors="pt"
    )
    ids, seen = read_tokenizer(file)(TEXTS, length)
    assert ids.tolist() == theirs.input_ids.tolist()
    assert seen.tolist() == theirs.attention_mask.bool().tolist()


def test_what_a_file_says_of_cutting_and_padding_does_not_count(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "<pad>",
    }  # fmt: skip
    changed = file.with_name("changed.json")
    changed.write_text(json.dumps(content), encoding="utf-8")
    ours, wanted = (read_tokenizer(path)(TEXTS, 32)[0].tolist() for path in (changed, file))
    assert ours == wanted


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no JSON"])
def test_a_file_that_is_no_tokenizer_is_told_of(file: Path, content: str) -> None:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match="is no tokenizer of T5") as raised:
        read_tokenizer(file)
    assert raised.value.problems[0].setting == "t5_tokenizer"


def test_a_file_that_is_missing_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere.json"):
        read_tokenizer(tmp_path / "nowhere.json")


def test_another_models_tokenizer_is_told_of(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace("</s>", "[SEP]"), encoding="utf-8")
    with pytest.raises(BadInput, match="is no tokenizer of T5"):
        read_tokenizer(file)

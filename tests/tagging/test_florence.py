from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_trainer.config import BadInput
from lora_trainer.tagging import florence
from lora_trainer.tagging.wording import TagOptions
from tests.tagging.florence_files import EMBEDDINGS, SIGHT, SPEECH, WORDS, write_florence

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's
QUESTION = "<s> Describe in detail what is shown in the image . </s>".split()  # noqa: SIM905


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_florence(tmp_path)


def expected(image: Image.Image) -> str:
    """The caption worked out from the whole answer at each step, without a cache."""
    means = np.asarray(image.resize((768, 768), Image.Resampling.BICUBIC)).mean(axis=(0, 1)) / 255
    seen = ((means - MEAN) / DEVIATION) @ SIGHT
    asked = EMBEDDINGS[[WORDS.index(word) for word in QUESTION]]
    state = np.concatenate([[seen], asked]).mean(axis=0)
    answer = [2, 0]
    while len(answer) < florence.MOST_TOKENS:
        logits = (EMBEDDINGS[answer].sum(axis=0) + state) @ SPEECH
        had = {tuple(answer[start : start + 3]) for start in range(len(answer) - 2)}
        allowed = [token for token in range(len(WORDS)) if (*answer[-2:], token) not in had]
        answer.append(max(allowed, key=lambda token: logits[token]))
        if answer[-1] == 2:
            break
    return " ".join(WORDS[token] for token in answer if token > 2)


COLOURS = ["#000", "#fff", "#c40", "#4c0", "#08f", "#888", "#f0f"]


def test_captions_are_what_the_model_says(folder: Path) -> None:
    model = florence.load(folder, TagOptions(), pytest.fail)
    pictures = [Image.new("RGB", (40, 30), colour) for colour in COLOURS]
    said = [expected(picture) for picture in pictures]
    assert len(set(said)) > 3  # or the test could not tell them apart
    assert model.batch_size == 1
    assert [model.caption([model.prepare(picture)])[0] for picture in pictures] == said
    assert model.caption([model.prepare(picture) for picture in pictures]) == said


@pytest.mark.parametrize(
    ("answer", "barred"),
    [([2, 0], []), ([2, 0, 5, 2, 0], [5]), ([7, 7, 7], [7]), ([1, 2, 3, 1, 2, 4, 1, 2], [3, 4]), ([1, 2, 3], [])],
)
def test_three_words_are_not_said_twice(answer: Sequence[int], barred: list[int]) -> None:
    assert florence.repeats(answer) == barred


@pytest.mark.parametrize(
    "file", ["tokenizer.json", *(f"onnx/{part}.onnx" for part in ("vision_encoder", "decoder_model_merged"))]
)
def test_a_damaged_file_is_named(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:60])
    with pytest.raises(BadInput, match=rf"{Path(file).name}.*damaged or cut off"):
        florence.load(folder, TagOptions(), pytest.fail)

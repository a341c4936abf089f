from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

from lora_trainer.config import BadInput
from lora_trainer.tagging import blip
from lora_trainer.tagging.taggers import TAGGERS
from lora_trainer.tagging.wording import TagOptions

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "cat", "on", "grass", "##y", "snow", "[DEC]"]
PAD, SEP, BEGIN = 0, 3, 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BLIP's files, with a small model of random weights."""
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(1)
    layers = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BlipConfig(
        text_config={
            **layers, "vocab_size": len(WORDS), "encoder_hidden_size": 16, "projection_dim": 8,
            "bos_token_id": BEGIN, "sep_token_id": SEP, "pad_token_id": PAD, "eos_token_id": 2,
        },
        vision_config={**layers, "image_size": 32, "patch_size": 16},
    )  # fmt: skip
    model = BlipForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        model.text_decoder.cls.predictions.decoder.bias[[PAD, 1, 2, BEGIN]] -= 50  # it says words
    model.save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def test_captions_are_what_transformers_generates(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} >= set(TAGGERS["blip"].files)
    tagger = blip.load(folder, TagOptions(), pytest.fail)
    pictures = [noise(seed) for seed in range(3)]
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    expected = []
    for picture in pictures:
        pixels = BlipImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
        (tokens,) = model.generate(pixels, max_new_tokens=60, num_beams=3, no_repeat_ngram_size=3).tolist()
        words = [WORDS[token] for token in tokens[1:] if token > SEP]
        expected.append(" ".join(words).replace(" ##", ""))
    assert len(set(expected)) == 3
    assert [tagger.caption([tagger.prepare(picture)])[0] for picture in pictures] == expected
    assert tagger.batch_size == 1 or torch.cuda.is_available() or torch.backends.mps.is_available()


def test_several_at_once_are_captioned_as_each_alone(folder: Path) -> None:
    tagger = blip.load(folder, TagOptions(), pytest.fail)
    prepared = [tagger.prepare(noise(seed)) for seed in range(3)]
    assert tagger.caption(prepared) == [tagger.caption([pixels])[0] for pixels in prepared]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"])
def test_a_damaged_file_is_told(folder: Path, tmp_path: Path, file: str) -> None:
    for entry in folder.iterdir():
        (tmp_path / entry.name).write_bytes(entry.read_bytes())
    (tmp_path / file).write_bytes((folder / file).read_bytes()[:50])
    with pytest.raises(BadInput, match="damaged or cut off"):
        blip.load(tmp_path, TagOptions(), pytest.fail)

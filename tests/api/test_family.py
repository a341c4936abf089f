from __future__ import annotations

import json
import struct
from pathlib import Path

from lora_trainer.api.family import is_full_size, with_family
from lora_trainer.config import Config
from lora_trainer.packages import ROOT
from tests.api.conftest import V1, Client, png

DEMO = ROOT / "lora_trainer" / "demo" / "base.safetensors"
SHAPES = {  # of SDXL: what its header alone tells it by
    "conditioner.embedders.1.model.ln_final.weight": [1280],
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": [49408, 768],
    "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [1280, 2816],
    "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": [640, 2048],
    "first_stage_model.decoder.conv_in.weight": [512, 4, 3, 3],
}


def header_only(path: Path) -> None:
    """A file with SDXL's names and shapes, whose numbers are a hole in it."""
    entries, end = {}, 0
    for name, shape in SHAPES.items():
        size = 2
        for length in shape:
            size *= length
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)


def test_the_base_models_header_tells_the_family_unless_the_config_does(tmp_path: Path) -> None:
    sdxl = tmp_path / "sdxl.safetensors"
    header_only(sdxl)
    assert with_family(Config(base_model=str(DEMO))).family == "sd15"
    assert with_family(Config(base_model=str(sdxl))).family == "sdxl"
    assert with_family(Config(base_model=str(sdxl), family="sd2")).family == "sd2"


def test_the_demos_base_is_none_of_full_size() -> None:
    assert not is_full_size(Config(base_model=str(DEMO)))


def test_what_is_no_model_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no model", encoding="utf-8")
    for name in ("text.safetensors", "missing.safetensors", ""):
        config = Config(base_model=name and str(tmp_path / name))
        assert with_family(config) == config


def test_steps_are_those_of_the_familys_own_buckets(client: Client, tmp_path: Path) -> None:
    """Two shapes that are one bucket at 512 are two at 1024."""
    folder = tmp_path / "datasets" / "zdm" / "1_zdm"
    folder.mkdir(parents=True)
    for name, size in {"a.png": (1024, 1024), "b.png": (1024, 900)}.items():
        (folder / name).write_bytes(png(size=size))
    header_only(tmp_path / "sdxl.safetensors")
    steps = {}
    for base in (DEMO, tmp_path / "sdxl.safetensors"):
        form = {"base_model": str(base), "dataset_name": "zdm", "repeats": "1", "epochs": "1", "batch_size": 2}
        answer = client.post(f"{V1}/config/check", json={"form": form, "quick": True}).json()
        assert answer["problems"] == []
        steps[base.name] = answer["steps"]
    assert steps == {"base.safetensors": 1, "sdxl.safetensors": 2}

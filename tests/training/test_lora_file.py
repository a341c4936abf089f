"""The LoRA file as other tools read it."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config
from lora_trainer.training.loop import train
from lora_trainer.training.lora_file import load_lora, save_lora

ConfigOf = Callable[..., Config]
TENSORS = {
    "lora_unet_x.alpha": torch.tensor(8.0),
    "lora_unet_x.lora_down.weight": torch.linspace(-1, 1, 4 * 320 * 600).view(4, 320 * 600)[:, ::2],
    "lora_unet_x.lora_up.weight": torch.linspace(0, 1, 320 * 4).view(320, 4).requires_grad_(),
}
METADATA = {"ss_network_dim": "4", "modelspec.title": "絵", "lora_trainer.version": "0.1.0"}
DTYPES = {"fp32": ("F32", torch.float32), "fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16)}


def parts(path: Path) -> tuple[dict[str, object], bytes]:
    """The header and the bytes behind it, read by the format's own rule: 8 bytes of length, JSON, data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


@pytest.mark.parametrize("precision", DTYPES)
def test_keys_precision_and_metadata(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "a.safetensors"
    save_lora(path, TENSORS, METADATA, precision)
    name, dtype = DTYPES[precision]
    header, _ = parts(path)
    kept = header.pop("__metadata__")
    assert isinstance(kept, dict) and METADATA.items() <= kept.items()
    assert kept.keys() - METADATA.keys() == {"sshs_model_hash", "sshs_legacy_hash"}
    assert {key: (entry["dtype"], entry["shape"]) for key, entry in header.items() if isinstance(entry, dict)} == {
        key: (name, list(tensor.shape)) for key, tensor in TENSORS.items()
    }
    read = load_file(path)
    assert all(torch.equal(read[key], tensor.detach().to(dtype)) for key, tensor in TENSORS.items())
    assert all(tensor.dtype == torch.float32 for tensor in load_lora(path).values())


def test_doras_lengths_keep_their_precision(tmp_path: Path) -> None:
    path, lengths = tmp_path / "a.safetensors", torch.tensor([[1.0001, 2.0003]])
    save_lora(path, {**TENSORS, "lora_unet_x.dora_scale": lengths}, METADATA, "bf16")
    read = load_file(path)
    assert torch.equal(read["lora_unet_x.dora_scale"], lengths)
    assert read["lora_unet_x.lora_up.weight"].dtype == torch.bfloat16


def test_hashes_are_those_that_the_webui_computes(tmp_path: Path) -> None:
    """`sshs_model_hash`: all that follows the header. `sshs_legacy_hash`: 64 KiB at 1 MiB of the file as it is with the
    `ss_*` metadata only."""
    path, bare = tmp_path / "a.safetensors", tmp_path / "bare.safetensors"
    save_lora(path, TENSORS, METADATA, "fp32")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    _, data = parts(path)
    assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()
    header = {key: value for key, value in parts(path)[0].items() if key != "__metadata__"}
    text = json.dumps({"__metadata__": {"ss_network_dim": "4"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bare.write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert bare.stat().st_size > 0x110000
    legacy = hashlib.sha256(bare.read_bytes()[0x100000:0x110000]).hexdigest()[:8]
    assert metadata["sshs_legacy_hash"] == legacy


def test_the_hash_of_a_trained_file_and_of_its_base(config_of: ConfigOf, tmp_path: Path, base: Path) -> None:
    train(config_of(max_steps=1, save_precision="fp16"))
    path = tmp_path / "out" / "blob.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["sshs_model_hash"] == hashlib.sha256(parts(path)[1]).hexdigest()
    assert metadata["ss_new_sd_model_hash"] == hashlib.sha256(base.read_bytes()).hexdigest()
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_lora(path, TENSORS, METADATA, "fp16")
    before, real = path.read_bytes(), Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        real(self, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_lora(path, TENSORS, METADATA, "fp32")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [before]


def test_what_is_no_lora_file_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        load_lora(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("a long enough line of text", encoding="utf-8")
    with pytest.raises(BadInput, match="not a model file"):
        load_lora(tmp_path / "text.safetensors")

"""Everything that a user can get wrong: one clear sentence a problem, exit code 2, nothing written and nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora_trainer.config import Config, Subset
from lora_trainer.packages import environment_for_child
from tests.commands.conftest import Command, contents, write_config

ConfigOf = Callable[..., Config]
Refused = Callable[..., list[str]]
SHORT: dict[str, Any] = {"max_steps": 2, "epochs": 1}
NAMES = ("space in name", "絵 その1", "cat 🐈", "ça d'été")


def folder_of(config: Config, folder: Path) -> Config:
    return replace(config, subsets=(Subset(folder=str(folder)),))


def picture(path: Path, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Path:
    Image.new(mode, size, 1).save(path)
    return path


def truncated_jpeg(path: Path) -> Path:
    Image.effect_noise((256, 256), 80).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:5000])
    return path


# ---- the dataset


def test_an_empty_folder(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    empty = tmp_path / "nothing here"
    empty.mkdir()
    (line,) = refused(folder_of(config_of(), empty))
    assert str(empty) in line and "is an empty folder" in line and "Put pictures into it (.png" in line


def test_a_folder_that_is_not_there(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    (line,) = refused(folder_of(config_of(), tmp_path / "gone"))
    assert "gone" in line and "there is no such folder" in line


def test_a_folder_of_text_files(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(3):
        (texts / f"{number}.txt").write_text("a cat", encoding="utf-8")
    (line,) = refused(folder_of(config_of(), texts))
    assert "has no pictures, only 3 text files" in line and "Put pictures into it" in line


def test_a_truncated_jpeg_is_named_and_the_rest_is_trained_on(
    command: Command, config_of: ConfigOf, pictures: Path, tmp_path: Path
) -> None:
    truncated_jpeg(pictures / "broken.jpg")
    before = contents(pictures)
    said = command("train", write_config(config_of(**SHORT), tmp_path))
    assert said.code == 0 and contents(pictures) == before
    (line,) = [line for line in said.errors if "broken.jpg" in line]
    assert "warning: " in line and "cannot be read to its end" in line and "Copy it again, or remove it." in line
    assert any("4 pictures" in line for line in said.errors)
    assert (tmp_path / "out" / "blob.safetensors").is_file()


def test_no_picture_is_left(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    folder = tmp_path / "all broken"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        truncated_jpeg(folder / name)
    first, *others = refused(folder_of(config_of(), folder))
    assert "no picture to train on is left" in first
    assert len(others) == 2 and "a.jpg" in others[0] and "b.jpg" in others[1]


def test_pictures_of_one_and_of_twenty_thousand_pixels_a_side(
    command: Command, refused: Refused, config_of: ConfigOf, pictures: Path, tmp_path: Path
) -> None:
    """Both are left out by name, in a run that has others and in one that has not."""
    strange = tmp_path / "strange"
    strange.mkdir()
    picture(strange / "tiny.png", (1, 1))
    picture(strange / "huge.png", (20_000, 20_000), "1")
    first, huge, tiny = refused(folder_of(config_of(), strange))
    assert "no picture to train on is left" in first
    assert "tiny.png" in tiny and "too small (1 x 1 pixels)" in tiny and "at least 16 pixels a side" in tiny
    assert "huge.png" in huge and "has more than 89,478,485 pixels" in huge and "Save it smaller" in huge
    for name in ("tiny.png", "huge.png"):
        shutil.copy(strange / name, pictures / name)
    said = command("train", write_config(config_of(**SHORT), tmp_path))
    warned = [line for line in said.errors if line.startswith("warning: ") and (".png" in line)]
    assert said.code == 0
    assert [name in line for name, line in zip(("huge.png", "tiny.png"), warned, strict=True)] == [True, True]
    assert any("4 pictures" in line for line in said.errors)


def test_a_strip_of_twenty_thousand_pixels_is_trained_on(
    command: Command, config_of: ConfigOf, pictures: Path, tmp_path: Path
) -> None:
    picture(pictures / "strip.png", (20_000, 64))
    config = config_of(buckets=True, min_bucket=64, max_bucket=128, **SHORT)
    said = command("train", write_config(config, tmp_path))
    assert said.code == 0 and any("5 pictures" in line for line in said.errors)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_captions_with_a_byte_order_mark(
    command: Command, config_of: ConfigOf, pictures: Path, tmp_path: Path, encoding: str
) -> None:
    text = "赤い玉, blob" if encoding != "utf-16-be" else "\ufeff赤い玉, blob"
    for number in range(4):
        (pictures / f"{number}.txt").write_text(text, encoding=encoding)
    before = contents(pictures)
    said = command("train", write_config(config_of(**SHORT), tmp_path))
    assert said.code == 0 and contents(pictures) == before
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        assert file.metadata()["ss_tag_frequency"] == '{"1_blob": {"赤い玉": 4, "blob": 4}}'


def test_a_caption_in_an_old_encoding_is_left_out_by_name(
    command: Command, config_of: ConfigOf, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "2.txt").write_bytes("赤い玉".encode("cp932"))
    said = command("train", write_config(config_of(**SHORT), tmp_path))
    (line,) = [line for line in said.errors if "2.txt" in line]
    assert said.code == 0 and "is not text in UTF-8" in line and "Save it in an editor with the encoding UTF-8" in line


def test_names_with_spaces_emoji_and_japanese(config_of: ConfigOf, pictures: Path, tmp_path: Path) -> None:
    """In a process of its own, whose console speaks an encoding that has none of these letters."""
    folder = tmp_path / "学習 セット 🎨"
    folder.mkdir()
    for name, old in zip(NAMES, sorted(pictures.glob("*.png")), strict=True):
        shutil.copy(old, folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{name}, 青い髪", encoding="utf-8")
    out = tmp_path / "出力 フォルダ"
    config = folder_of(config_of(output_name="マスコット その1 🐈", output_folder=str(out), **SHORT), folder)
    done = subprocess.run(
        [sys.executable, "-m", "lora_trainer", "train", str(write_config(config, tmp_path))],
        env={**environment_for_child(), "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True, check=False,
    )  # fmt: skip
    said = done.stderr.decode("utf-8")
    assert done.returncode == 0, said
    assert "マスコット その1 🐈: 4 pictures" in said
    with safe_open(out / "マスコット その1 🐈.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == "マスコット その1 🐈"
    assert "絵 その1" in metadata["ss_tag_frequency"] and "学習 セット 🎨" in metadata["ss_dataset_dirs"]


# ---- the output


def test_an_output_folder_below_a_file(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    """Nobody may write there, root neither."""
    (tmp_path / "a file").write_text("mine", encoding="utf-8")
    (line,) = refused(config_of(output_folder=str(tmp_path / "a file" / "out")))
    assert line.startswith("output_folder = ") and "can't be written to" in line
    assert "Choose a folder that you may write to." in line


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_folder(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    (line,) = refused(config_of(output_folder=str(closed)))
    closed.chmod(0o755)
    assert "can't be written to" in line and str(closed) in line


def test_a_read_only_file_system(
    refused: Refused, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("lora_trainer.training.saves.tempfile.TemporaryFile", denied)
    (line,) = refused(config_of(output_folder=str(tmp_path / "deep" / "er")))
    assert "can't be written to (Read-only file system). Choose a folder that you may write to." in line


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_full_before_the_start(
    refused: Refused, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 2**30 - 1000, 1000))
    (line,) = refused(config_of())
    assert line.startswith("output_folder = ") and "its disk has 0 MiB free and the run needs about" in line
    assert "Free some space, choose another folder, or save less often" in line


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 1 MiB, which needs Linux and root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "lora_trainer", str(disk)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_small_disk(refused: Refused, config_of: ConfigOf, small_disk: Path) -> None:
    (line,) = refused(config_of(output_folder=str(small_disk / "out")))
    assert "its disk has 1 MiB free" in line


@pytest.mark.parametrize("save_state", ["every", "off"])
def test_a_small_disk_that_fills_up(
    command: Command, config_of: ConfigOf, small_disk: Path, monkeypatch: pytest.MonkeyPatch, save_state: str
) -> None:
    """The check before the start is passed; then a state (torch writes it) or a LoRA finds no room."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 0, 2**30))
    config = config_of(output_folder=str(small_disk), epochs=20, batch_size=4, save_state=save_state, rank=2)
    said = command("train", write_config(config, small_disk.parent))
    assert said.code == 1 and not any("Traceback" in line for line in said.errors)
    assert "failed: No space left on device; earlier saves are kept." in said.errors[-1]
    files = [path for path in small_disk.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.endswith(".tmp")]
    saves = [path for path in files if path.suffix == ".safetensors"]
    assert saves and all(len(load_file(path)) == 3 * (192 + 18) for path in saves)


def test_a_save_that_fails_in_mid_run(
    command: Command, config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence, exit code 1, earlier saves whole, no temporary file; with room again the run goes on to its end."""
    file = write_config(config_of(), tmp_path)
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "blob-000002" not in self.name:
            return real(self, data)
        real(self, data[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        said = command("train", file)
    assert said.code == 1 and not any("Traceback" in line for line in said.errors)
    assert said.errors[-1] == (
        "The save after step 4 failed: No space left on device; earlier saves are kept."
        " Free some space, then train again: the run goes on from its last state."
    )
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(files) == ["blob-000001.safetensors", "run.json", "state.bin"]
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tmp_path / "out/blob-000001.safetensors").values())
    again = command("train", file)
    assert again.code == 0 and any("Going on after step 2." in line for line in again.errors)


def test_a_cache_that_finds_no_room(
    command: Command, config_of: ConfigOf, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write_config(config_of(cache_latents="disk"), tmp_path)
    monkeypatch.setattr(Path, "write_bytes", full)
    said = command("train", file)
    assert said.code == 1 and "can't be written (No space left on device)." in said.errors[-1]
    assert not list(pictures.rglob("*.tmp")) and not (tmp_path / "out").exists()


def test_a_taken_output_name(refused: Refused, command: Command, config_of: ConfigOf, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "blob.safetensors").write_bytes(b"somebody's work")
    (line,) = refused(config_of())
    assert 'output_name = "blob": blob.safetensors exists already in out.' in line
    said = command("train", write_config(config_of(overwrite="number", **SHORT), tmp_path))
    assert said.code == 0 and (tmp_path / "out" / "blob-v2.safetensors").is_file()
    assert (tmp_path / "out" / "blob.safetensors").read_bytes() == b"somebody's work"


@pytest.mark.parametrize("name", ["../blob", "deep/blob", "C:\\blob", "..\\blob"])
def test_an_output_name_with_a_path_in_it(refused: Refused, config_of: ConfigOf, name: str) -> None:
    (line,) = refused(config_of(output_name=name))
    assert line.startswith("output_name = ") and "contains a path" in line and "output_folder for the place" in line


@pytest.mark.parametrize("name", ["", "a" * 300, "what?", "nul", "\0"])
def test_an_output_name_that_no_file_can_have(refused: Refused, config_of: ConfigOf, name: str) -> None:
    (line,) = refused(config_of(output_name=name))
    assert line.startswith("output_name")


# ---- the config


def test_six_mistakes_are_six_messages(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    """Of wrong types, out of bounds, unknown, contradictory, in the name: in the file and on the command line."""
    file = write_config(config_of(rank=0, epochs=-1, output_name="a/b"), tmp_path)
    text = file.read_text(encoding="utf-8").replace("batch_size = 2", 'batch_size = "two"')
    file.write_text(text + "\n[extra]\nlearning_rat = 1e-4\n", encoding="utf-8")
    lines = refused(file, "--set", "warmup_percent=10", "schedule=constant")
    assert len(lines) == 6
    settings = {line.split(" ")[0] for line in lines}
    assert settings == {"rank", "epochs", "output_name", "batch_size", "learning_rat", "warmup_percent"}
    assert all(line.endswith((".", "?")) for line in lines)


def test_problems_of_config_base_and_pictures_come_together(
    refused: Refused, config_of: ConfigOf, tmp_path: Path
) -> None:
    config = folder_of(config_of(rank=0, base_model=str(tmp_path / "gone.safetensors")), tmp_path / "nowhere")
    lines = refused(config)
    assert sorted(line.split(" ")[0] for line in lines) == ["base_model", "rank", "subsets"]


def test_an_unknown_key_with_the_nearest_known_one(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    (line,) = refused(write_config(config_of(), tmp_path), "--set", "epoch=3")
    assert line == 'epoch = "3": is not a setting. Did you mean "epochs"?'
    (line,) = refused(write_config(config_of(), tmp_path), "--set", "network_dim=3")  # as sd-scripts calls it
    assert 'Did you mean "rank"?' in line


def test_constant_with_a_warm_up(refused: Refused, config_of: ConfigOf) -> None:
    (line,) = refused(config_of(schedule="constant", warmup_percent=5))
    assert line.startswith("warmup_percent = 5") and "the constant schedule has no warm-up" in line
    assert "constant_with_warmup" in line


def test_a_config_file_that_is_missing_or_no_toml(refused: Refused, tmp_path: Path) -> None:
    (line,) = refused(tmp_path / "gone.toml")
    assert line == 'config = "gone.toml": there is no such file. Check the path.'
    broken = tmp_path / "broken.toml"
    broken.write_text('[model]\nbase_model = "C:\\models\\a.safetensors"\n', encoding="utf-8")
    (line,) = refused(broken)
    assert "line 2, column" in line and "is not TOML" in line and "Windows paths in single quotes" in line
    broken.write_bytes(Image.new("RGB", (8, 8)).tobytes() + b"\xff\x00")
    (line,) = refused(broken)
    assert line.startswith("config")
    (line,) = refused(tmp_path)
    assert line.startswith("config = ") and "cannot be read" in line


def test_settings_that_this_computer_lacks(refused: Refused, config_of: ConfigOf) -> None:
    """Found as late as the device is known, and still before anything is written."""
    if torch.cuda.is_available():
        pytest.skip("this computer has a GPU")
    (line,) = refused(config_of(mixed_precision="fp16"))
    assert line.startswith('mixed_precision = "fp16"') and "CPU" in line and "Use bf16 or no." in line


def test_optimizer_arguments_that_the_optimizer_lacks(refused: Refused, config_of: ConfigOf) -> None:
    *_, line = refused(config_of(optimizer_args=("weight_decoy=0.1",)))
    assert line.startswith("optimizer_args = ") and "Did you mean weight_decay?" in line


@pytest.mark.parametrize(
    "broken",
    [
        {"bucket_step": 0, "buckets": True, "min_bucket": 64},
        {"resolution": (0, 0)},
        {"subsets": (Subset(folder="a\0b"),)},
        {"family": "nonsense", "base_model": "gone.safetensors"},
        {"epochs": 0, "batch_size": 0},
    ],
    ids=lambda broken: "+".join(broken),
)
def test_values_that_nothing_can_be_computed_with(
    refused: Refused, config_of: ConfigOf, broken: dict[str, Any]
) -> None:
    """Each is reported once, beside whatever else is wrong."""
    stated = [name for name in broken if name not in ("buckets", "min_bucket")]
    lines = refused(config_of(**broken))
    assert sorted(line.partition(" ")[0].partition(".")[0] for line in lines) == sorted(stated)


def test_a_family_that_is_not_the_base_models(refused: Refused, config_of: ConfigOf) -> None:
    (line,) = refused(config_of(family="sdxl"))
    assert line == 'family = "sdxl": small.safetensors is of the family sd15. Set it to "auto".'


# ---- the base model


def test_a_base_that_is_missing(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    (line,) = refused(config_of(base_model=str(tmp_path / "gone.safetensors")))
    assert line == 'base_model = "gone.safetensors": there is no such file. Choose a file that exists.'
    (line,) = refused(config_of(base_model=""))
    assert line == "base_model: is missing. Give the path of a file or folder."


def test_a_base_whose_path_no_file_can_have(refused: Refused, config_of: ConfigOf) -> None:
    (line,) = refused(config_of(base_model="a" * 5000))
    assert line.startswith("base_model") and "can't be opened" in line and "Check its path" in line


def test_a_base_that_may_not_be_read(
    refused: Refused, config_of: ConfigOf, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played, as root may read anything."""
    real = Path.open

    def denied(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == base:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", denied)
    (line,) = refused(config_of())
    assert 'base_model = "small.safetensors": can\'t be opened (Permission denied).' in line


@pytest.mark.parametrize("setting", ["vae", "start_lora"])
def test_another_file_that_does_not_fit(
    refused: Refused, config_of: ConfigOf, pictures: Path, tmp_path: Path, setting: str
) -> None:
    for file in (tmp_path / "gone", pictures / "0.png"):
        *_, line = refused(config_of(**{setting: str(file)}))
        assert line.startswith(f'{setting} = "{file.name}"')


def test_a_base_that_is_a_lora(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    key = "lora_unet_down_blocks_0_attentions_0_proj_in"
    tensors = {
        f"{key}.lora_down.weight": torch.zeros(4, 320),
        f"{key}.lora_up.weight": torch.zeros(320, 4),
        f"{key}.alpha": torch.tensor(2.0),
    }
    save_file(tensors, tmp_path / "style.safetensors")
    (line,) = refused(config_of(base_model=str(tmp_path / "style.safetensors")))
    assert "style.safetensors" in line and "LoRA" in line


def test_a_base_that_is_a_picture(refused: Refused, config_of: ConfigOf, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "model.png")
    (tmp_path / "model.png").rename(tmp_path / "model.safetensors")
    (line,) = refused(config_of(base_model=str(tmp_path / "model.safetensors")))
    assert "model.safetensors" in line and "a PNG picture" in line and "Choose a .safetensors or .ckpt file." in line


@pytest.mark.parametrize("share", [0.9, 0.01])
def test_a_base_that_is_cut_off(
    refused: Refused, config_of: ConfigOf, base: Path, tmp_path: Path, share: float
) -> None:
    data = base.read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: int(share * len(data))])
    (line,) = refused(config_of(base_model=str(tmp_path / "half.safetensors")))
    assert "half.safetensors" in line and "is cut off" in line and "Download it again." in line


def test_a_base_without_a_part_that_only_training_needs(
    refused: Refused, config_of: ConfigOf, base: Path, tmp_path: Path
) -> None:
    """Its header is that of a base model; that the VAE is missing shows as it is loaded."""
    tensors = {name: tensor for name, tensor in load_file(base).items() if not name.startswith("first_stage_model.")}
    with safe_open(base, "pt") as file:
        save_file(tensors, tmp_path / "pruned.safetensors", metadata=file.metadata())
    *_, line = refused(config_of(base_model=str(tmp_path / "pruned.safetensors")))
    assert "pruned.safetensors" in line and "VAE" in line


def test_inspect_and_check_refuse_in_the_same_words(command: Command, config_of: ConfigOf, tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "model.png")
    config = config_of(base_model=str(tmp_path / "model.png"))
    for arguments in (("inspect", tmp_path / "model.png"), ("check", write_config(config, tmp_path))):
        said = command(*arguments)
        assert said.code == 2 and said.out == []
        (line,) = said.errors
        assert "a PNG picture" in line

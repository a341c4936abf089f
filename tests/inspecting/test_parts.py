"""What a Flux base needs beside it, found by what the files hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from lora_trainer.config import Config
from lora_trainer.inspecting import identify
from lora_trainer.inspecting.parts import PARTS, TOKENIZERS, Found, find_parts, is_tokenizer, where, with_parts
from tests.flux_files import FluxFiles, ae_tensors, clip_tensors, make_flux, t5_tensors, write_tokenizer


@pytest.fixture
def webui(tmp_path: Path) -> Path:
    """The folder of a WebUI with a Flux transformer, and no part of it yet."""
    models = tmp_path / "webui" / "models"
    (models / "Stable-diffusion").mkdir(parents=True)
    files = make_flux(tmp_path / "made")
    shutil.move(files.transformer, models / "Stable-diffusion" / "flux.safetensors")
    return models.parent


@pytest.fixture
def made(tmp_path: Path, webui: Path) -> FluxFiles:
    """The files that fit that transformer, in a folder that nobody looks into."""
    parts = {part: tmp_path / "made" / f"{part}.safetensors" for part in ("clip_l", "t5xxl", "ae")}
    transformer = webui / "models" / "Stable-diffusion" / "flux.safetensors"
    return FluxFiles(transformer, **parts, t5_tokenizer=tmp_path / "made" / "tokenizer.json")


def found(files: FluxFiles, *folders: Path, **given: Path) -> Found:
    named = {part: str(path) for part, path in given.items()}
    return find_parts(identify(files.transformer), named, folders)


def put(file: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)
    return target


def problems(found: Found) -> dict[str, str]:
    return {problem.setting: problem.problem for problem in found.problems}


def test_all_are_missing_and_each_is_told_with_its_place(made: FluxFiles, webui: Path) -> None:
    told = found(made)

    assert told.files == {} and [problem.setting for problem in told.problems] == list(PARTS)
    assert problems(told)["t5xxl"] == "T5-XXL of this Flux model is missing"
    places = {problem.setting: problem.remedy for problem in told.problems}
    assert str(webui / "models" / "VAE") in places["ae"]
    assert str(webui / "models" / "text_encoder") in places["t5xxl"] and "tokenizer_2" in places["t5_tokenizer"]


def test_parts_are_found_by_what_they_hold(made: FluxFiles, webui: Path) -> None:
    models = webui / "models"
    there = {
        "clip_l": put(made.clip_l, models / "text_encoder" / "a.safetensors"),
        "t5xxl": put(made.t5xxl, models / "text_encoder" / "deeper" / "b.sft"),
        "ae": put(made.ae, models / "VAE" / "t5xxl.safetensors"),
        "t5_tokenizer": put(made.t5_tokenizer, webui / TOKENIZERS / "FLUX.1-dev" / "tokenizer_2" / "tokenizer.json"),
    }
    save_file(ae_tensors(channels=4), models / "VAE" / "ae.safetensors")  # as of SD1.5
    (models / "VAE" / "broken.safetensors").write_bytes(b"x")
    (models / "text_encoder" / "config.json").write_text("{", encoding="utf-8")
    told = found(made)

    assert told.files == there and told.problems == ()
    assert told.others == {part: (path,) for part, path in there.items()}


def test_the_hosts_folders_need_not_be_near_the_base(made: FluxFiles, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    path = put(made.clip_l, elsewhere / "clip" / "x.safetensors")

    assert found(made, elsewhere, elsewhere / "clip").others["clip_l"] == (path,)
    assert found(made).files == {}


def test_nothing_near_is_looked_for_where_that_is_not_wanted(made: FluxFiles, webui: Path) -> None:
    put(made.clip_l, webui / "models" / "text_encoder" / "x.safetensors")
    base = identify(made.transformer)

    assert "clip_l" in find_parts(base, {}).files
    assert find_parts(base, {}, nearby=False).files == {}


def test_what_lies_beside_the_base_is_the_last_choice(made: FluxFiles, webui: Path) -> None:
    beside = put(made.ae, made.transformer.with_name("ae.safetensors"))
    assert found(made).files == {"ae": beside}
    usual = put(made.ae, webui / "models" / "VAE" / "longer name.safetensors")
    assert found(made).others["ae"] == (usual,)


def test_the_others_may_lie_beside_the_t5_that_is_named(made: FluxFiles) -> None:
    assert found(made, t5xxl=made.t5xxl).files == made.parts


def test_the_more_exact_of_several_is_taken(made: FluxFiles, webui: Path) -> None:
    folder = webui / "models" / "text_encoder"
    folder.mkdir()
    for dtype in ("fp8", "fp16", "fp32"):
        save_file(t5_tensors(dtype=dtype), folder / f"{dtype}.safetensors")

    assert [path.stem for path in found(made).others["t5xxl"]] == ["fp16", "fp32", "fp8"]


def test_of_autoencoders_in_the_same_shapes_that_of_sd3_is_last(made: FluxFiles, webui: Path) -> None:
    theirs = put(made.ae, webui / "models" / "VAE" / "SD3.safetensors")
    ours = put(made.ae, webui / "models" / "VAE" / "flux-vae-bf16.safetensors")

    assert found(made).others["ae"] == (ours, theirs)


def test_a_part_of_another_width_is_passed_over_and_told_where_it_is_named(
    made: FluxFiles, webui: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide.safetensors"
    save_file(clip_tensors(width=128), wide)
    put(wide, webui / "models" / "text_encoder" / "wide.safetensors")

    assert "clip_l" not in found(made).files
    told = found(made, clip_l=wide)
    assert told.files["clip_l"] == wide
    assert problems(told)["clip_l"] == "gives 128 numbers for a token, and this base model takes 64"


def test_a_base_with_everything_needs_the_tokenizer_only(tmp_path: Path) -> None:
    files = make_flux(tmp_path, layout="all-in-one")
    told = found(files)

    assert told.files == files.parts and told.problems == ()
    files.t5_tokenizer.unlink()
    assert [*problems(found(files))] == ["t5_tokenizer"]


def test_a_part_may_be_taken_out_of_another_file_with_everything(made: FluxFiles, tmp_path: Path) -> None:
    whole = make_flux(tmp_path / "whole", layout="all-in-one").transformer

    assert not problems(found(made, t5xxl=whole, clip_l=whole, ae=whole)).keys() & {"t5xxl", "clip_l", "ae"}


WRONG: dict[str, tuple[str, Callable[[FluxFiles], Path], str]] = {
    "an autoencoder as T5": (
        "t5xxl",
        lambda files: files.ae,
        "holds the autoencoder of Flux or SD3, which can't be used as T5-XXL",
    ),
    "T5 as autoencoder": (
        "ae",
        lambda files: files.t5xxl,
        "holds the text encoder T5-XXL, which can't be used as Autoencoder",
    ),
    "T5 as CLIP-L": (
        "clip_l",
        lambda files: files.t5xxl,
        "holds the text encoder T5-XXL, which can't be used as CLIP-L",
    ),
    "the base as T5": ("t5xxl", lambda files: files.transformer, "holds a base model, which can't be used as T5-XXL"),
    "no file": ("ae", lambda files: files.ae.with_name("gone"), "there is no such file"),
    "weights as tokenizer": ("t5_tokenizer", lambda files: files.t5xxl, "is no tokenizer of T5"),
    "no tokenizer": ("t5_tokenizer", lambda files: files.ae.with_name("gone"), "is no tokenizer of T5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_told_beside_its_setting(made: FluxFiles, case: str) -> None:
    part, file_of, sentence = WRONG[case]
    file = file_of(made)
    told = found(made, **{part: file})

    problem = next(problem for problem in told.problems if problem.setting == part)
    assert (problem.value, problem.problem) == (file.name, sentence)
    assert problem.remedy.startswith("Choose ")


def test_a_t5_in_gguf_is_named(made: FluxFiles, webui: Path) -> None:
    gguf = webui / "models" / "text_encoder" / "x.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(b"GGUF\x03\0\0\0" + bytes(16) + b"general.architecture\x08\0\0\0t5encoder")

    assert problems(found(made))["t5xxl"] == "T5-XXL is there as a GGUF file only, which can't be read yet"
    gguf.write_bytes(b"GGUF\x03\0\0\0" + bytes(16) + b"general.architecture\x08\0\0\0flux")
    assert problems(found(made))["t5xxl"] == "T5-XXL of this Flux model is missing"


def test_the_place_for_a_file(tmp_path: Path) -> None:
    base = tmp_path / "Stable-diffusion" / "flux" / "x.safetensors"

    assert where("ae", base) == tmp_path / "VAE"
    assert where("clip_l", Path("downloads", "x.safetensors")) == Path("downloads")
    folders = [Path("a", "text_encoder"), Path("a", "VAE")]
    assert [where(part, base, folders) for part in PARTS] == [folders[0], folders[0], folders[1], folders[0]]


def test_a_base_and_its_config_get_the_files(made: FluxFiles, tmp_path: Path) -> None:
    for path in (made.t5xxl, made.ae, made.t5_tokenizer):
        put(path, made.transformer.with_name(path.name))
    config = Config(base_model=str(made.transformer), clip_l=str(made.clip_l))
    base, filled, faults = with_parts(identify(made.transformer), config)

    assert faults == () and base.parts.keys() == set(PARTS)
    assert {part: str(base.parts[part]) for part in PARTS} == {part: getattr(filled, part) for part in PARTS}
    assert base.parts["clip_l"] == made.clip_l


def test_other_families_have_no_parts(small) -> None:
    base, config = identify(small("sd15").path), Config(clip_l="x")

    assert with_parts(base, config) == (base, config, ())


@pytest.mark.parametrize(
    "change",
    [
        {"type": "BPE"},
        {"vocab": {"<pad>": 0, "</s>": 1}},
        {"vocab": [["<s>", 0.0], ["<pad>", 0.0]]},
        {"vocab": None},
    ],
)
def test_another_tokenizer_is_none_of_t5(tmp_path: Path, change: dict[str, object]) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json")
    assert is_tokenizer(path)
    table = json.loads(path.read_text(encoding="utf-8"))
    table["model"] |= change
    other = tmp_path / "other.json"
    other.write_text(json.dumps(table), encoding="utf-8")
    assert not is_tokenizer(other)

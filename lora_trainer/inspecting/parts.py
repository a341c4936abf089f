"""The files that a Flux transformer needs beside it: which they are, and where they are found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_trainer.config import SETTINGS, BadInput, Config, Problem
from lora_trainer.inspecting import flux
from lora_trainer.inspecting.catalogue import CATALOGUE, Stamp, stamp_of
from lora_trainer.inspecting.header import read_header
from lora_trainer.inspecting.identify import BaseModel

FOLDERS = {"clip_l": "text_encoder", "t5xxl": "text_encoder", "ae": "VAE", "t5_tokenizer": "text_encoder"}
PARTS = tuple(FOLDERS)  # by the settings that name their files; each lies in this folder of a WebUI's models
TOKENIZERS = Path("backend", "huggingface", "black-forest-labs")  # of Forge's own
_NAMES = ("text_encoder", "text_encoders", "TextEncoders", "clip", "CLIP", "VAE", "vae")  # as programs call them
_LEVELS = 4  # folders above a base model in which these are looked for
_WEIGHTS, _GGUF, _JSON = (".safetensors", ".sft"), ".gguf", ".json"
_PRECISIONS = ("fp16", "bf16", "fp32", "fp8")  # the one that is taken first, first
_LARGEST_TOKENIZER = 20_000_000  # bytes; T5's has 2.4 million


@dataclass(frozen=True)
class Found:
    """For each part its file, where there is one, and all files that could be it; and what is wrong."""

    files: Mapping[str, Path] = field(default_factory=dict)
    others: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def find_parts(
    base: BaseModel, given: Mapping[str, str | None], folders: Sequence[Path] = (), nearby: bool = True
) -> Found:
    """What a Flux base needs: the file that `given` names, else the base itself, else the first of those that fit.

    Looked through are `folders` and, if `nearby`, those near the base that programs have for such files; what is not
    there is looked for beside the base, and beside T5. Of several files the more exact one is first. A file that is
    named and does not fit is among `files`, too.
    """
    needed = flux.inputs(flux.tensors_of("transformer", read_header(base.path).tensors))
    there = list(files_in((*folders, *(near(base.path) if nearby else ()))))
    beside = [file for path in (base.path, given.get("t5xxl")) if path for file in _beside(Path(path))]
    files: dict[str, Path] = {}
    others: dict[str, tuple[Path, ...]] = {}
    problems: list[Problem] = []
    for part in PARTS:
        own = [base.parts[part]] if part in base.parts else []
        others[part] = (*own, *(_fitting(part, needed, there) or _fitting(part, needed, beside)))
        if named := given.get(part):
            files[part] = Path(named)
            problems += _faults(part, Path(named), needed)
        elif others[part]:
            files[part] = others[part][0]
        else:
            problems.append(_missing(part, there, where(part, base.path, folders)))
    return Found(files, others, tuple(problems))


def with_parts(base: BaseModel, config: Config) -> tuple[BaseModel, Config, tuple[Problem, ...]]:
    """A Flux base and its config with the files of all its parts, and what is wrong with them; others as they are."""
    if base.family != "flux":
        return base, config, ()
    found = find_parts(base, named_in(config))
    paths: dict[str, Any] = {part: str(file) for part, file in found.files.items()}
    return replace(base, parts=found.files), replace(config, **paths), found.problems


def is_flux(base: Path) -> bool:
    """Whether the file is a Flux base, as the catalogue knows it."""
    facts = CATALOGUE.read(base)
    return facts["kind"] == "base model" and facts["family"] == "flux"


def named_in(config: Config) -> dict[str, str | None]:
    """The files of parts that a config names."""
    return {part: getattr(config, part) for part in PARTS}


def where(part: str, base: Path, folders: Sequence[Path] = ()) -> Path:
    """The folder to put a part's file into: the one of its kind among `folders`, or near the base."""
    for folder in folders:
        if ("vae" in folder.name.lower()) == (part == "ae"):
            return folder
    models = next((above for above in base.parents if above.name.lower() in ("models", "stable-diffusion")), None)
    if models is None:
        return base.parent
    return (models if models.name.lower() == "models" else models.parent) / FOLDERS[part]


def near(base: Path) -> Iterator[Path]:
    """The folders near a base model where programs have text encoders, VAEs and tokenizers."""
    for above in base.absolute().parents[:_LEVELS]:
        yield from (above / name for name in (*_NAMES, TOKENIZERS))


def files_in(folders: Iterable[Path]) -> Iterator[Path]:
    """Every file in these folders and below them that may be a part, once."""
    seen = set()
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            place = os.path.normcase(os.path.realpath(file))
            if place not in seen and _may_be(file):
                seen.add(place)
                yield file


def _beside(path: Path) -> list[Path]:
    return [file for file in sorted(path.parent.glob("*")) if _may_be(file)]


def _may_be(file: Path) -> bool:
    return file.suffix.lower() in (*_WEIGHTS, _GGUF, _JSON) and file.is_file()


def _fitting(part: str, needed: Mapping[str, int], files: Iterable[Path]) -> list[Path]:
    if part == "t5_tokenizer":
        return [file for file in files if file.suffix.lower() == _JSON and is_tokenizer(file)]
    weights = (file for file in files if file.suffix.lower() in _WEIGHTS)
    alone = [file for file in weights if CATALOGUE.read(file).get("part") == part]
    return sorted((file for file in alone if _width(part, file) == needed.get(part)), key=_rank)


def _rank(file: Path) -> tuple[int, bool, int, str]:
    """SD3's autoencoder has the shapes of Flux's, so that only its name tells it."""
    precision = CATALOGUE.read(file)["precision"]
    place = _PRECISIONS.index(precision) if precision in _PRECISIONS else len(_PRECISIONS)
    return place, "sd3" in file.name.lower(), len(file.name), file.name


def _width(part: str, file: Path) -> int:
    return flux.width(part, read_header(file).tensors)


def _faults(part: str, file: Path, needed: Mapping[str, int]) -> Iterator[Problem]:
    """What is wrong with a file that the user has named."""
    title = SETTINGS[part].label
    remedy = f"Choose the file of {title}, or leave it empty."
    if part == "t5_tokenizer":
        if not is_tokenizer(file):
            yield Problem(part, file.name, "is no tokenizer of T5", "Choose the tokenizer.json of T5.")
        return
    try:
        tensors = read_header(file).tensors
    except BadInput as error:
        yield from (replace(each, setting=part) for each in error.problems)
        return
    if not (flux.IS_PART[part](tensors) and flux.is_readable(flux.tensors_of(part, tensors))):
        yield Problem(part, file.name, f"holds {_what(file)}, which can't be used as {title}", remedy)
    elif part in needed and flux.width(part, tensors) != needed[part]:
        width = flux.width(part, tensors)
        problem = f"gives {width} numbers for a token, and this base model takes {needed[part]}"
        yield Problem(part, file.name, problem, remedy)


def _what(file: Path) -> str:
    kind: str = CATALOGUE.read(file)["kind"]
    return {"base model": "a base model", "LoRA": "a LoRA", "": "another model"}.get(kind, kind)


def _missing(part: str, there: Iterable[Path], folder: Path) -> Problem:
    title = SETTINGS[part].label
    if part == "t5xxl" and any(file.suffix.lower() == _GGUF and _is_t5_in_gguf(file) for file in there):
        problem = f"{title} is there as a GGUF file only, which can't be read yet"
        return Problem(part, None, problem, f"Put t5xxl_fp16 or t5xxl_fp8_e4m3fn into {folder}, or name its file.")
    if part == "t5_tokenizer":
        remedy = f"Put the tokenizer.json of T5 (Flux.1 has it in tokenizer_2) into {folder}, or name its file."
        return Problem(part, None, "the T5 tokenizer of this Flux model is missing", remedy)
    return Problem(part, None, f"{title} of this Flux model is missing", f"Put it into {folder}, or name its file.")


def _is_t5_in_gguf(file: Path) -> bool:
    """By the architecture, which is the first of its facts."""
    with file.open("rb") as stream:
        return b"t5" in stream.read(256)


def is_tokenizer(file: Path) -> bool:
    """Whether it is the tokenizer of a T5, in the JSON of the library tokenizers."""
    stamp = stamp_of(file)
    return stamp is not None and stamp[0] <= _LARGEST_TOKENIZER and _is_tokenizer(file, stamp)


@lru_cache(maxsize=256)
def _is_tokenizer(file: Path, _: Stamp) -> bool:
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        return model["type"] == "Unigram" and [token for token, _ in model["vocab"][:2]] == ["<pad>", "</s>"]
    except (OSError, ValueError, TypeError, KeyError):
        return False

"""What lies in a set's folder: names and stamps, no file opened."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.folders import CAPTION_ENDINGS, ORIGINALS, is_named
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.index import stamp_of
from lora_trainer.files import is_temporary

Place = tuple[str, str]  # a folder in the set ("" for the set's own) and a file in it, or a file's stem


@dataclass
class Scan:
    pictures: dict[Place, str] = field(default_factory=dict)  # by folder and file: its stamp
    captions: dict[Place, tuple[str, str]] = field(default_factory=dict)  # by folder and stem: file and stamp
    originals: dict[str, str] = field(default_factory=dict)  # by stem: the file
    leftovers: list[Path] = field(default_factory=list)  # of processes that ended in mid-writing
    nameless: list[str] = field(default_factory=list)  # pictures whose name is no text, as near as it can be shown


def scan(folder: Path, caption_extension: str) -> Scan:
    """The pictures in the set's `10_name` folders, or in the folder itself where there are none.

    Of several captions of one picture, the first ending counts: `caption_extension`. Raises BadInput where a folder
    cannot be read.
    """
    endings = sorted(CAPTION_ENDINGS, key=lambda ending: ending != caption_extension)
    found = Scan()
    named = sorted(entry.name for entry in _listed(folder) if entry.is_dir() and is_named(entry.name))
    for name in named or [""]:
        _scan_folder(folder, name, endings, found)
    if (folder / ORIGINALS).is_dir():
        names = (entry.name for entry in _listed(folder / ORIGINALS) if entry.name[0] != ".")
        found.originals = {stem_of(name): name for name in names if _ending(name) in PICTURE_ENDINGS}
    return found


def stem_of(name: str) -> str:
    """`listing.stem` of a file's name: a Path for each of 20,000 names would cost as much as all the rest."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])  # noqa: PTH122


def _scan_folder(folder: Path, name: str, endings: list[str], found: Scan) -> None:
    captions: dict[str, list[tuple[int, str, str]]] = {}
    for entry in _listed(folder / name):
        ending = _ending(entry.name)
        if entry.name[0] == ".":
            found.leftovers += [Path(entry)] if is_temporary(entry.name, CAPTION_ENDINGS) else []
        elif ending in PICTURE_ENDINGS and (stamp := _stamp(entry)):
            if _is_text(entry.name):
                found.pictures[name, entry.name] = stamp
            else:
                found.nameless.append(f"{name}/{entry.name}".encode(errors="replace").decode())
        elif ending in endings and _is_text(entry.name) and (stamp := _stamp(entry)):
            candidate = (endings.index(ending), entry.name, stamp)
            captions.setdefault(stem_of(entry.name), []).append(candidate)
    for key, candidates in captions.items():
        found.captions[name, key] = min(candidates)[1:]


def _listed(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        raise BadInput(Problem("dataset", str(folder), "there is no such folder", "Check its name.")) from None
    except NotADirectoryError:
        raise BadInput(Problem("dataset", str(folder), "is no folder", "Name the folder it lies in.")) from None
    except OSError as error:
        problem, remedy = f"cannot be read ({error.strerror})", "Check the folder and the rights to it."
        raise BadInput(Problem("dataset", str(folder), problem, remedy)) from error


def _stamp(entry: os.DirEntry[str]) -> str:
    """ "" for what is no file, or is one no longer."""
    try:
        return stamp_of(entry.stat()) if entry.is_file() else ""
    except OSError:
        return ""


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


def _is_text(name: str) -> bool:
    return name.isascii() or name == name.encode(errors="replace").decode()

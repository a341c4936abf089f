"""Pictures of an import on their way: copied, hashed and developed in a folder apart, and named."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.captions import caption_text
from lora_trainer.dataset.folders import ORIGINALS
from lora_trainer.dataset.listing import some, stem
from lora_trainer.dataset.pictures import picture_file
from lora_trainer.dataset.store.contents import Contents
from lora_trainer.dataset.store.develop import develop
from lora_trainer.dataset.store.gathering import Item
from lora_trainer.dataset.store.names import free_stem, safe_stem
from lora_trainer.dataset.store.sources import Member
from lora_trainer.files import sync_folder

_ARRIVING = "arriving"
_FORMATS = Image.registered_extensions()


@dataclass(frozen=True)
class Wishes:
    """How pictures are brought in: the folder for those without one of their own, what is behind transparent pixels
    (as the setting `background` has it), and the ending of caption files.
    """

    folder: str
    background: str
    caption_extension: str


@dataclass(frozen=True)
class _Caption:
    shown: str
    file: Path
    readable: bool


@dataclass(frozen=True)
class Arrived:
    """A picture's files: as it came, what is trained on, and the captions, the one to use first."""

    digest: str
    ending: str
    original: Path
    picture: Path
    captions: tuple[_Caption, ...]


@dataclass
class Staging:
    """The folder `path` of one import. `fetch` may run in threads; `admit` gives the names, and is called in order."""

    path: Path
    contents: Contents
    wishes: Wishes
    added: int = 0
    already: int = 0
    left_out: list[Problem] = field(default_factory=list)
    _digests: set[str] = field(default_factory=set)
    _relabelled: list[str] = field(default_factory=list)
    _renamed: list[str] = field(default_factory=list)
    _unread: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.path / _ARRIVING).mkdir()

    def fetch(self, numbered: tuple[int, Item]) -> Arrived | Problem | None:
        """Copies and develops a picture; None where the set has its bytes. Raises OSError where it cannot write."""
        number, item = numbered
        original = self.path / _ARRIVING / str(number)
        try:
            size, digest = _copy(item.picture, original)
            if self.contents.hold(size, digest):
                original.unlink()
                return None
            ending = picture_file(original).ending
            picture = develop(original, original.with_suffix(".png"), self.wishes.background)
        except BadInput as error:
            original.unlink(missing_ok=True)
            problem = error.problems[0]
            return Problem(item.picture.shown, None, problem.problem, problem.remedy)
        if picture == original:
            picture = _linked(original, original.with_suffix(ending))
        captions = [_caption(member, original, index) for index, member in enumerate(item.captions)]
        for path in (original, picture, *(caption.file for caption in captions)):
            _sync(path)
        return Arrived(digest, ending, original, picture, tuple(captions))

    def admit(self, item: Item, arrived: Arrived | Problem | None) -> None:
        """Counts what `fetch` gave, and puts its files under their names."""
        if isinstance(arrived, Problem):
            self.left_out.append(arrived)
        elif arrived is None:
            self.already += 1
        elif arrived.digest in self._digests:
            self.already += 1
            for path in (arrived.original, arrived.picture, *(caption.file for caption in arrived.captions)):
                path.unlink()
        else:
            self.added += 1
            self._digests.add(arrived.digest)
            self._name(item, arrived)

    def notices(self) -> list[str]:
        """In whole sentences, what was done to the names and captions."""
        sentences = []
        if self._relabelled:
            sentences.append(f"Pictures whose ending was wrong have the right one: {some(self._relabelled)}.")
        if self._renamed:
            sentences.append(
                f"Names that were taken, or that some system refuses, have changed: {some(self._renamed)}."
            )
        if self._unread:
            sentences.append(
                f"Captions that are not used lie in {ORIGINALS}, as they are no UTF-8 text of at most 64 KiB or a"
                f" second caption of their picture: {some(self._unread)}."
            )
        return sentences

    def close(self) -> None:
        """Forces the names to disk; the files are there already."""
        shutil.rmtree(self.path / _ARRIVING)
        for folder in (*self.path.iterdir(), self.path):
            sync_folder(folder)

    def _name(self, item: Item, arrived: Arrived) -> None:
        shown, path = item.picture.shown, item.picture.path
        name = free_stem(path.stem, self.contents.stems)
        if name != stem(path):
            self._renamed.append(f"{shown} to {name}")
        if _FORMATS[path.suffix.lower()] != _FORMATS[arrived.ending]:
            self._relabelled.append(f"{shown} to {arrived.ending}")
        folder = self._folder(self.contents.folder_like(safe_stem(item.folder or self.wishes.folder)))
        originals = self._folder(ORIGINALS)
        arrived.original.rename(originals / f"{name}{arrived.ending}")
        arrived.picture.rename(folder / f"{name}{arrived.picture.suffix}")
        used = next((caption for caption in arrived.captions if caption.readable), None)
        for caption in arrived.captions:
            if caption is used:
                caption.file.rename(folder / f"{name}{self.wishes.caption_extension}")
            else:
                self._unread.append(caption.shown)
                caption.file.rename(originals / f"{name}{caption.file.suffix}")

    def _folder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder


def _copy(member: Member, target: Path) -> tuple[int, str]:
    """Its size in bytes and their SHA-256. BadInput where it cannot be read, OSError where it cannot be written."""
    sha, size = hashlib.sha256(), 0
    with target.open("wb") as file:
        for block in member.blocks():
            file.write(block)
            sha.update(block)
            size += len(block)
    return size, sha.hexdigest()


def _caption(member: Member, original: Path, index: int) -> _Caption:
    """The caption beside the original, in UTF-8, or as it came where it cannot be read."""
    file = original.with_name(f"{original.name}-{index}{member.path.suffix.lower()}")
    try:
        _copy(member, file)
        text = caption_text(file)
    except BadInput:
        return _Caption(member.shown, file, False)
    file.write_bytes(text.encode())
    return _Caption(member.shown, file, True)


def _linked(original: Path, picture: Path) -> Path:
    """The same file under a second name; a copy on file systems that have one name per file."""
    try:
        os.link(original, picture)
    except OSError:
        shutil.copyfile(original, picture)
    return picture


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())

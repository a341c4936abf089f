"""What a set holds already: its names, and the bytes of its originals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from lora_trainer.dataset.folders import LEFT_OUT, ORIGINALS, is_named
from lora_trainer.dataset.listing import listed, with_ending
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.names import stem_key
from lora_trainer.files import digest


class Contents:
    """The set's stems by their keys, pictures' or captions', and its originals by size.

    A picture that has no original is one itself. Digests are taken only of originals that have a new file's size.
    """

    def __init__(self, folder: Path) -> None:
        folders = list(_picture_folders(folder))
        originals = listed(folder / ORIGINALS, "dataset") if (folder / ORIGINALS).is_dir() else []
        pictures = [file for inner in folders for file in listed(inner, "dataset")]
        kept = {stem_key(file.stem) for file in with_ending(originals, PICTURE_ENDINGS)}
        self.stems = {stem_key(file.stem) for file in (*originals, *pictures)}
        self._folders = {stem_key(inner.name): inner.name for inner in folders if inner.parent == folder}
        self._by_size: dict[int, list[Path]] = {}
        originals += [file for file in pictures if stem_key(file.stem) not in kept]
        for file in with_ending(originals, PICTURE_ENDINGS):
            self._by_size.setdefault(file.stat().st_size, []).append(file)
        self._digests: dict[Path, str] = {}
        self._lock = threading.Lock()

    def hold(self, size: int, sha256: str) -> bool:
        """Whether the set has a file of these bytes."""
        with self._lock:
            for file in self._by_size.get(size, ()):
                if file not in self._digests:
                    self._digests[file] = digest(file)
                if self._digests[file] == sha256:
                    return True
        return False

    def folder_like(self, name: str) -> str:
        """The folder that some system would take for `name`, or `name` where there is none."""
        return self._folders.setdefault(stem_key(name), name)


def _picture_folders(folder: Path) -> Iterator[Path]:
    for parent in (folder, folder / LEFT_OUT):
        if parent.is_dir():
            yield parent
            yield from (entry for entry in listed(parent, "dataset") if entry.is_dir() and is_named(entry.name))

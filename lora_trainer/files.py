"""Files that are whole or not there: written beside their place, forced to disk, then renamed."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path, *, folder_too: bool = True) -> Iterator[Path]:
    """Yields a temporary path to write; it becomes `path` when the block ends well, and goes away when it fails.

    A reader, or a run that goes on after a power cut, sees the old file or the whole new one, never a half one. Who
    writes many files into a folder leaves the folder out and ends with `sync_folder`: until then the old one may come
    back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        with Path(temporary).open("rb+") as file:
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if folder_too:
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def temporary_path(path: Path) -> Path:
    """Where this process writes what becomes `path`: beside it, and hidden.

    A long name is replaced by its digest, as the rest could make it exceed the 255 bytes that a name may have.
    """
    name = os.fsencode(path.name)
    short = path.name if len(name) <= 64 else hashlib.sha256(name).hexdigest() + path.suffix[:8]
    return path.with_name(f".{short}.{os.getpid()}.tmp")


def is_temporary(name: str, endings: Sequence[str] | None = None) -> bool:
    """Whether it is such a path's name, of a file with one of these endings (of at most 8 letters), or with any."""
    match = re.fullmatch(r"\.(.+)\.\d+\.tmp", name, re.DOTALL)
    return match is not None and (endings is None or Path(match[1]).suffix.lower() in endings)


def remove_temporaries(folder: Path) -> None:
    """Removes what killed processes have left below `folder`, where no other one may be writing."""
    for path in folder.rglob(".*.tmp"):
        if is_temporary(path.name):
            path.unlink()


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def sync_folder(folder: Path) -> None:
    """Forces the folder's names to disk: a rename in it is kept from then on."""
    if os.name == "nt":  # a folder can't be opened there, and NTFS keeps the order of renames itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

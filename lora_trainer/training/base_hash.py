"""What tells one base model from another: size and time of its file, and the hashes by which a WebUI knows it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.files import digest


@dataclass(frozen=True)
class Identity:
    """Of a base's file, or of all files in its folder: bytes, the newest time (ns), and SHA-256 once that is known."""

    name: str
    size: int
    changed_at: int
    sha256: str = ""


def identity(path: Path) -> Identity:
    """Without the hash, which takes seconds. OSError where the file is gone."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    facts = [file.stat() for file in files]
    return Identity(path.name, sum(each.st_size for each in facts), max(each.st_mtime_ns for each in facts))


def is_same(known: Identity, path: Path) -> bool:
    """Whether `path` still holds what it held; a file with another time is read whole to tell."""
    found = identity(path)
    if (found.size, found.changed_at) == (known.size, known.changed_at):
        return True
    return found.size == known.size and bool(known.sha256) and digest(path) == known.sha256


class BaseHash:
    """Computed beside the training, because a base of several GB takes seconds to read; a call waits for it."""

    def __init__(self, path: Path):
        self._path = path
        self._found: dict[str, str] = {}
        self._thread = threading.Thread(target=self._compute, daemon=True)
        self._thread.start()

    def __call__(self) -> dict[str, str]:
        """`ss_sd_model_hash` (the WebUI's old short one) and `ss_new_sd_model_hash` (SHA-256); {} for a folder."""
        self._thread.join()
        return self._found

    def _compute(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(0x100000)
            short = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
        self._found = {"ss_sd_model_hash": short, "ss_new_sd_model_hash": digest(self._path)}

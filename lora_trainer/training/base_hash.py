"""The hashes by which a WebUI knows the base model of a LoRA."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path


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
        whole = hashlib.sha256()
        with self._path.open("rb") as file:
            while block := file.read(1 << 20):
                whole.update(block)
            file.seek(0x100000)
            short = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
        self._found = {"ss_sd_model_hash": short, "ss_new_sd_model_hash": whole.hexdigest()}

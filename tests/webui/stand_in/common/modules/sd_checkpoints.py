"""The files of checkpoints, by their names; in the real ones a part of sd_models."""

from __future__ import annotations

import hashlib
from pathlib import Path

from modules import shared
from modules.paths import models_path

MODEL_BYTES = 192 << 20  # what a loaded model takes of main memory, whatever its file's size
model_path = str(Path(models_path, "Stable-diffusion"))
checkpoints_list = {}
checkpoint_aliases = {}


class CheckpointInfo:
    """`title` has the hash as soon as that is known, which is when the model is loaded."""

    def __init__(self, filename):
        self.filename, self.name = filename, Path(filename).relative_to(model_path).as_posix()
        self.name_for_extra = Path(filename).stem
        self.model_name = Path(self.name.replace("/", "_")).stem
        self.shorthash, self.title = None, self.name
        self.register()

    def register(self):
        checkpoints_list[self.title] = self
        for name in (self.title, self.name, self.name_for_extra, self.model_name, self.shorthash):
            checkpoint_aliases[name] = self

    def calculate_shorthash(self):
        if not self.shorthash:
            checkpoints_list.pop(self.title, None)
            self.shorthash = hashlib.sha256(Path(self.filename).read_bytes()).hexdigest()[:10]
            self.title = f"{self.name} [{self.shorthash}]"
            self.register()
        return self.shorthash


def find_checkpoints(*endings):
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    for path in shared.walk_files(model_path, endings):
        CheckpointInfo(path)

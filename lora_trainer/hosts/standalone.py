"""A host of our own, with folders as a WebUI has them and no models of its own on the GPU."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.hosts.alone import NoHost

MODEL_ENDINGS = (".safetensors", ".ckpt")
DEMO = Path(__file__).resolve().parent.parent / "demo"


@dataclass(frozen=True)
class Standalone(NoHost):
    """`folder` holds `datasets`, `jobs`, and in `models` the folders of a WebUI; the demo's base is always there.

    `python` trains; it need not be the one that shows the page.
    """

    name: str = "the trainer's own page"
    folder: Path = field(default_factory=Path)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def datasets(self) -> Path:
        return self.folder / "datasets"

    def lora_folders(self) -> list[Path]:
        return [self.models / "Lora"]

    def part_folders(self) -> list[Path]:
        return [self.models / "text_encoder", self.models / "VAE"]

    def checkpoints(self) -> list[tuple[str, Path]]:
        folder = self.models / "Stable-diffusion"
        found = [path for path in sorted(folder.rglob("*")) if path.suffix in MODEL_ENDINGS and path.is_file()]
        own = [(path.relative_to(folder).as_posix(), path) for path in found]
        return [*own, ("demo/base.safetensors", DEMO / "base.safetensors")]

    def set_up(self) -> None:
        """Makes the folders. In a folder without datasets, the demo's seven pictures become the first one."""
        for folder in (self.models / "Stable-diffusion", *self.lora_folders(), *self.part_folders()):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.datasets.exists():
            shutil.copytree(DEMO / "mascot", self.datasets / "demo")

"""The WebUI as a Host: its folders and checkpoints, and its GPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.hosts.host import Drawing
from lora_trainer.hosts.webui import drawing, gpu


@dataclass(frozen=True)
class WebUI:
    """A Host: folders, checkpoints and GPU of the WebUI that this runs in."""

    name: str = "the WebUI"
    python: str = sys.executable

    def lora_folders(self) -> list[Path]:
        from modules import paths, shared

        return [Path(getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path, "Lora")).absolute()]

    def part_folders(self) -> list[Path]:
        """Forge's, which A1111 has in part; with the tokenizers that Forge carries."""
        from modules import paths, shared

        from lora_trainer.inspecting.parts import TOKENIZERS

        own = [Path(paths.models_path, name) for name in ("text_encoder", "VAE", "CLIP")]
        named = (getattr(shared.cmd_opts, name, None) for name in ("text_encoder_dir", "vae_dir"))
        told = [Path(folder) for folder in named if folder]
        return [folder.absolute() for folder in (*own, *told, Path(paths.script_path, TOKENIZERS))]

    def checkpoints(self) -> list[tuple[str, Path]]:
        """With those that Forge makes pictures with, and the trainer can't read (GGUF)."""
        from modules import sd_models

        return [(info.name, Path(info.filename)) for info in list(sd_models.checkpoints_list.values())]

    def refresh_checkpoints(self) -> None:
        from modules import sd_models

        sd_models.list_models()

    def current_checkpoint(self) -> str:
        from modules import sd_models, shared

        info = sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
        return info.name if info else ""

    def free_gpu(self) -> None:
        """Waits for the picture that is being made, then lets go of the models; the next one loads them again."""
        gpu.free()

    def take_gpu_back(self) -> None:
        """Loads the model again where one had been loaded."""
        gpu.take_back()

    def refresh_loras(self) -> None:
        """The list of the WebUI's own extension for LoRAs; where that is off, there is none."""
        networks = sys.modules.get("networks")
        if networks is not None and hasattr(networks, "list_available_networks"):
            networks.list_available_networks()
            drawing.forget_kept(networks)

    @property
    def draws(self) -> bool:
        return True

    def draw(self, asked: Drawing, target: Path) -> None:
        """As its own Generate does, with LoRAs that need not lie in its folder."""
        drawing.draw(asked, target)

    def stop_drawing(self) -> None:
        drawing.stop()

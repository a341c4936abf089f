"""The WebUI, AUTOMATIC1111's or Forge's: the only file that imports its `modules`."""

from __future__ import annotations

import gc
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.packages import ROOT

_running: dict[str, Any] = {}  # the queue and its supervisor, which live on when the WebUI reloads its page


def register() -> None:
    """Has the WebUI show the tab, and answer our routes. Called again at each reload of its page."""
    from modules import script_callbacks

    script_callbacks.on_ui_tabs(tabs)
    script_callbacks.on_app_started(start)


def tabs() -> list[tuple[Any, str, str]]:
    from lora_trainer.ui.tab import NAME, TITLE, build

    return [(build(), TITLE, NAME)]


def start(_demo: Any, app: Any) -> None:
    """Puts the routes on the WebUI's app; the first time, starts what runs the queue."""
    from lora_trainer.api import mount
    from lora_trainer.jobs.queue import Queue
    from lora_trainer.jobs.supervisor import Supervisor

    host = WebUI()
    if not _running:
        queue = Queue(ROOT / "jobs")
        _running.update(queue=queue, supervisor=Supervisor(queue, host))
        _running["supervisor"].start()
    mount(app, _running["queue"], _running["supervisor"], host, _access(app))


@dataclass(frozen=True)
class WebUI:
    """A Host: folders, checkpoints and GPU of the WebUI that this runs in."""

    name: str = "the WebUI"
    python: str = sys.executable

    def lora_folders(self) -> list[Path]:
        from modules import paths, shared

        return [Path(getattr(shared.cmd_opts, "lora_dir", None) or Path(paths.models_path, "Lora")).absolute()]

    def checkpoints(self) -> list[tuple[str, Path]]:
        from modules import sd_models

        found = ((info.name, Path(info.filename)) for info in list(sd_models.checkpoints_list.values()))
        return [(name, path) for name, path in found if path.suffix != ".gguf"]  # Forge lists those, too

    def refresh_checkpoints(self) -> None:
        from modules import sd_models

        sd_models.list_models()

    def current_checkpoint(self) -> str:
        from modules import sd_models, shared

        info = sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
        return info.name if info else ""

    def free_gpu(self) -> None:
        """Waits for the picture that is being made, then lets go of the models; the next one loads them again."""
        from modules import devices
        from modules.call_queue import queue_lock

        with queue_lock:
            _unload_forge() if _is_forge() else _unload_a1111()
            gc.collect()
            devices.torch_gc()

    def take_gpu_back(self) -> None:
        """Nothing to do: the WebUI loads its model when the next picture is asked for."""

    def refresh_loras(self) -> None:
        """The list of the WebUI's own extension for LoRAs; where that is off, there is none."""
        if networks := sys.modules.get("networks"):
            networks.list_available_networks()
            if clear := getattr(getattr(networks, "load_lora_state_dict", None), "cache_clear", None):
                clear()  # Forge keeps files by their names, whatever is in them


def _is_forge() -> bool:
    return importlib.util.find_spec("modules_forge") is not None


def _unload_forge() -> None:
    from backend import memory_management
    from modules import sd_models

    memory_management.unload_all_models()
    sd_models.model_data.set_sd_model(sd_models.FakeInitialModel())
    sd_models.model_data.forge_hash = ""


def _unload_a1111() -> None:
    """`unload_model_weights` would only move the weights to main memory."""
    from modules import sd_hijack, sd_models

    data = sd_models.model_data
    if data.sd_model is None:
        return
    sd_hijack.model_hijack.undo_hijack(data.sd_model)
    data.sd_model = None
    for model in data.loaded_sd_models:
        sd_models.send_model_to_trash(model)
    data.loaded_sd_models.clear()


def _access(app: Any) -> Any:
    from modules import shared

    from lora_trainer.api import Access

    options = shared.cmd_opts
    given = (options.api_auth or "").split(",") if getattr(options, "api_auth", None) else []
    users = dict(pair.strip().split(":", 1) for pair in given if ":" in pair)
    listening = bool(options.listen or options.share or getattr(options, "ngrok", None))
    return Access(users or None, app, listening, allowed_remotely=False)

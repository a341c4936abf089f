"""The process ends, and whoever watches it starts it again where tmp/restart lies."""

from __future__ import annotations

import os
from pathlib import Path

from modules.paths import script_path


def is_restartable() -> bool:
    return bool(os.environ.get("SD_WEBUI_RESTART"))


def restart_program() -> None:
    folder = Path(script_path, "tmp")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "restart").touch()
    stop_program()


def stop_program() -> None:
    os._exit(0)

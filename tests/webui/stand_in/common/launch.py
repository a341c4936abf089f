"""Stands in for launch.py of A1111 v1.10.1 and Forge f2.0.1: each extension's install.py first, then the WebUI.

As in the real ones, extensions, models and settings lie in --data-dir, where that is given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from modules.paths import data_path, extensions_dir, script_path
from modules.shared_cmd_options import cmd_opts
from modules.timer import startup_timer


def run_extension_installer(folder: str) -> None:
    """As both do it: in the WebUI's Python and folder, its root first in PYTHONPATH, and output only at the end."""
    installer = Path(folder, "install.py")
    if not installer.is_file():
        return
    path = f"{script_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, str(installer)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        encoding="utf-8",
        errors="ignore",
    )
    if done.returncode:
        print(f"*** Error running install.py for extension {folder}.\nError code: {done.returncode}\n{done.stderr}")
    elif done.stdout.strip():
        print(done.stdout.strip())


def disabled() -> list[str]:
    config = Path(data_path, "config.json")
    return json.loads(config.read_text(encoding="utf-8")).get("disabled_extensions", []) if config.is_file() else []


def main() -> None:
    Path(extensions_dir).mkdir(parents=True, exist_ok=True)
    startup_timer.record("initial startup")
    with startup_timer.subcategory("prepare environment"):
        if not cmd_opts.skip_install:
            with startup_timer.subcategory("run extensions installers"):
                for folder in sorted(Path(extensions_dir).iterdir()):
                    if folder.is_dir() and folder.name not in disabled():
                        run_extension_installer(str(folder))
                        startup_timer.record(folder.name)
    import webui

    webui.main()


if __name__ == "__main__":
    main()

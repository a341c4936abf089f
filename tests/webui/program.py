"""The WebUI that the checks run in: a stand-in, or the real one that LORA_TRAINER_WEBUI names.

LORA_TRAINER_WEBUI: the folder of a real A1111 or Forge; LORA_TRAINER_WEBUI_PYTHON: its Python;
LORA_TRAINER_WEBUI_ARGUMENTS: what it is to be started with besides, such as --no-half and --ckpt-dir. Nothing in that
folder is changed: extensions, LoRAs and settings lie in a folder of the test's own, by --data-dir.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.packages import PARENT_VARIABLE, ROOT, install, parent
from tests.browser.server import FOLDERS, NEW, OLD

STAND_IN = Path(__file__).with_name("stand_in")
REAL = os.environ.get("LORA_TRAINER_WEBUI", "")
SLOW = Path(REAL, "modules_forge").is_dir() and bool(REAL)  # a full-size model on a CPU: some seconds for each step
GRADIO = {"a1111": OLD, "forge": NEW}
LORA_EXTENSION = {"a1111": "Lora", "forge": "sd_forge_lora"}
# gradio's folder goes on this process's path alone: a worker, which inherits PYTHONPATH, has packages of its own.
START = "import runpy, sys; sys.path[:0] = [sys.argv.pop(1), sys.argv.pop(1)]; sys.argv[0] = 'launch.py'"
START += "; runpy.run_path('launch.py', run_name='__main__')"
LEFT_OUT = ("tests", "benchmarks", "packages", "jobs", "datasets", "models", "output", "demo-output")


@dataclass(frozen=True)
class Program:
    """`folder`: where its launch.py lies; `command`: how that is run; `kind`: "a1111" or "forge"."""

    folder: Path
    command: tuple[str, ...]
    kind: str
    environment: dict[str, str]

    @property
    def name(self) -> str:
        """Of the screenshots' folder."""
        return f"real-{self.kind}" if REAL else self.kind


def real() -> Program:
    folder = Path(REAL).resolve()
    kind = "forge" if (folder / "modules_forge").is_dir() else "a1111"
    words = shlex.split(os.environ.get("LORA_TRAINER_WEBUI_ARGUMENTS", ""))
    python = os.environ.get("LORA_TRAINER_WEBUI_PYTHON", sys.executable)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return Program(folder, (python, "launch.py", *words), kind, kept)


def stand_in(kind: str, folder: Path) -> Program:
    """Put together in `folder`, of what both have and what each has of its own."""
    install(FOLDERS[GRADIO[kind]])
    loras = folder / "extensions-builtin" / LORA_EXTENSION[kind]
    for part, target in {"common": folder, kind: folder, "lora": loras, f"lora_{kind}": loras}.items():
        shutil.copytree(STAND_IN / part, target, dirs_exist_ok=True)
    command = (sys.executable, "-c", START, str(folder), str(FOLDERS[GRADIO[kind]].path))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return Program(folder, command, kind, {**kept, PARENT_VARIABLE: str(parent())})


def repository(folder: Path) -> str:
    """The URL of a git repository of the files as they lie here, committed or not."""
    git = ("git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@localhost")
    folder.mkdir(parents=True)
    for name in _files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "as it lies here")):
        subprocess.run([*git, *words], check=True)
    return folder.as_uri()


def _files() -> list[Path]:
    """Of the working tree, as a clone would have them."""
    if (ROOT / ".git").exists():
        words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(words, check=True, capture_output=True, encoding="utf-8").stdout.split("\0")
        found = [Path(name) for name in listed if name]
    else:
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if not any(p.startswith(".") for p in path.parts)]
    return [path for path in found if path.parts[0] not in LEFT_OUT and (ROOT / path).is_file()]

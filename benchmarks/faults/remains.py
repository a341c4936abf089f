"""What a fault has left: events, files that are not whole, and processes that live on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_trainer.config import load_toml
from lora_trainer.jobs.event_log import Event, read_events
from lora_trainer.jobs.folder import JobFolder

UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, SyntaxError)


def damaged(*folders: Path) -> list[Path]:
    """The files under these folders that cannot be read to their end, but for those that have no name yet."""
    return [path for path in _files(*folders) if not (_is_hidden(path) or _is_whole(path))]


def left_behind(*folders: Path) -> list[Path]:
    """What was begun to be written and never got its name."""
    return [path for path in _files(*folders) if _is_hidden(path)]


def all_events(folder: JobFolder) -> list[Event]:
    found: list[Event] = []
    offset = 0
    while True:
        events, offset = read_events(folder.events, offset)
        if not events:
            return found
        found += events


def workers_of(folder: JobFolder) -> list[int]:
    """The process ids of a job's living workers, as the system lists them."""
    words = {"worker", str(folder.path)}
    listed = psutil.process_iter(["pid", "cmdline", "status"])
    living = [process.info for process in listed if process.info["status"] != psutil.STATUS_ZOMBIE]
    return [info["pid"] for info in living if words <= set(info["cmdline"] or ())]


def outliving(processes: Sequence[psutil.Process], seconds: float = 10) -> int:
    """How many of these live on for longer than that."""
    deadline = time.monotonic() + seconds
    while (alive := sum(map(is_alive, processes))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _files(*folders: Path) -> Iterator[Path]:
    return (path for folder in folders for path in folder.rglob("*") if path.is_file())


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _is_whole(path: Path) -> bool:
    read = READERS.get(path.suffix)
    try:
        if read:
            read(path)
    except FileNotFoundError:  # an older LoRA, taken away meanwhile
        return True
    except UNREADABLE:
        return False
    return True


def _read_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def _read_lines(path: Path) -> None:
    """The last line may be cut off by a kill: a reader waits for its end, and the next worker takes it away."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        json.loads(line)


READERS: dict[str, Callable[[Path], object]] = {
    ".safetensors": load_file,
    ".bin": lambda path: torch.load(path, weights_only=True),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".jsonl": _read_lines,
    ".toml": load_toml,
    ".png": _read_picture,
}

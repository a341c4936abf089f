"""The training packages: kept in folders of our own, so that nothing of the host's Python is ever changed.

Standard library only, because this runs before anything is installed.

A folder is named by Python version, torch version and a hash of its list (packages/py311-torch2.13-1a2b3c4d). It is
filled beside its place and renamed, so an interrupted installation leaves nothing that looks finished.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lora_trainer.locks import Lock, Taken

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("packages.txt")
PARENT_VARIABLE = "LORA_TRAINER_PACKAGES"
FOUNDATION = ("torch", "numpy", "pillow")  # the running Python's own, where it has them
BITSANDBYTES_BELOW_TORCH = {(2, 3): "0.45.5", (2, 4): "0.49.2"}  # the newest that loads with a torch below the key
TAGS_ON_CUDA = "onnxruntime-gpu"  # 300 MB, so never fetched; the running Python's own is used where it is there
BREAKING = ("xformers", "kornia")  # a host's broken copies of these break the import of diffusers
WEB = "web"  # the kind of the folders of packages that show a page: for no worker, whose own would be hidden by them
STAMP = "installed.txt"
WAIT_SECONDS = 3600.0
# What pip prints -> what is wrong, and what to do.
CAUSES = (
    (r"No module named pip\b", "this Python has no pip", "Install pip (https://pip.pypa.io/en/stable/installation/)"),
    (
        r"No space left on device|not enough space on the disk|Disk quota exceeded",
        "the disk is full",
        f"Make room (1 GB, or 10 where torch is missing), or name a folder on another disk in {PARENT_VARIABLE},",
    ),
    (
        r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ProxyError|Network is unreachable",
        "the package index cannot be reached",
        "Connect to the internet",
    ),
)

Progress = Callable[[str], None]


class PackageProblem(Exception):
    """Why the packages cannot be had, in one sentence, and what to do, in another."""


@dataclass(frozen=True)
class Folder:
    """A private folder of packages and what is installed into it."""

    kind: str
    requirements: tuple[str, ...]
    with_dependencies: bool

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(self.stamp.encode("utf-8")).hexdigest()[:8]
        return parent() / f"py{sys.version_info.major}{sys.version_info.minor}-{self.kind}-{digest}"

    @property
    def stamp(self) -> str:
        return "\n".join((sys.platform, *self.requirements, ""))

    @property
    def finished(self) -> bool:
        return (self.path / STAMP).is_file()


def parent() -> Path:
    """Where the private folders lie: `packages` in the extension, or what LORA_TRAINER_PACKAGES names."""
    return Path(os.environ.get(PARENT_VARIABLE) or ROOT / "packages").resolve()


def ensure(progress: Progress = print) -> tuple[Path, ...]:
    """Installs what is missing and returns the private folders, first on the path first.

    Returns no folder where this project is installed in the running Python (`pip install -e .`), which then has all it
    needs. Raises PackageProblem.
    """
    if is_installed():
        return ()
    foundation = _foundation()
    for folder in foundation:
        install(folder, progress)
    training = _training(foundation)
    install(training, progress)
    return (training.path, *(folder.path for folder in foundation))


def activate() -> tuple[Path, ...]:
    """Puts the private folders first on `sys.path` and hides the host's packages that break ours; returns the folders.

    To be called before other imports. PYTHONPATH would not do: an embedded Python ignores it. Raises PackageProblem
    where the packages are not installed.
    """
    if is_installed():
        return ()
    foundation = _foundation()
    if not all(folder.finished for folder in foundation) or not (training := _training(foundation)).finished:
        raise PackageProblem(
            f"The training packages are not installed in {parent()}."
            f" Run `{sys.executable} -m lora_trainer setup` in {ROOT}."
        )
    paths = (training.path, *(folder.path for folder in foundation))
    sys.path[:] = dict.fromkeys((*map(str, paths), *sys.path))
    for name in BREAKING if (training.path / "bitsandbytes").is_dir() else (*BREAKING, "bitsandbytes"):
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign for "not to be had"
    return paths


def environment_for_child() -> dict[str, str]:
    """The environment in which a child of this process finds the same packages, and this project, from any folder.

    `python -m lora_trainer` activates them itself; this is for every other program, such as a launcher of processes.
    """
    ours = (entry for entry in sys.path if Path(entry).is_relative_to(parent()))
    private = [entry for entry in ours if f"-{WEB}-" not in Path(entry).name]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = dict.fromkeys(filter(None, (*private, str(ROOT), *inherited)))
    return {**os.environ, PARENT_VARIABLE: str(parent()), "PYTHONPATH": os.pathsep.join(path)}


def is_installed() -> bool:
    """Whether pip installed this project into the running Python (an egg-info folder in a checkout has no RECORD)."""
    return any(found.read_text("RECORD") for found in metadata.distributions(name="lora-trainer"))


def read_list(file: Path) -> tuple[str, ...]:
    """The requirements in a list, without comments."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def name_of(requirement: str) -> str:
    """The normalised name of a requirement's distribution: `PyYAML==6` -> `pyyaml`."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def for_torch(torch_version: str) -> tuple[str, ...]:
    """The training packages for a torch such as "2.3.1+cu121", without the foundation. PackageProblem if too old."""
    version = tuple(map(int, torch_version.split(".")[:2]))
    oldest = re.search(r"torch>=(\d+)\.(\d+)", LIST.read_text(encoding="utf-8"))
    if oldest and version < tuple(map(int, oldest.groups())):
        raise PackageProblem(
            f"torch {torch_version} of {sys.executable} is too old. Update it to {'.'.join(oldest.groups())} or newer."
        )
    fitting = next((pin for limit, pin in BITSANDBYTES_BELOW_TORCH.items() if version < limit), None)
    listed = (line for line in read_list(LIST) if name_of(line) not in FOUNDATION)
    return tuple(re.sub(r"^(bitsandbytes)==[\d.]+", rf"\1=={fitting}", line) if fitting else line for line in listed)


def _foundation() -> tuple[Folder, ...]:
    """The folder for torch, numpy and Pillow where the running Python lacks one of them, else nothing."""
    listed = (line for line in read_list(LIST) if name_of(line) in FOUNDATION)
    missing = tuple(line for line in listed if not any(metadata.distributions(name=name_of(line))))
    return (Folder("foundation", missing, with_dependencies=True),) if missing else ()


def _training(foundation: Iterable[Folder]) -> Folder:
    """The folder of the training packages; torch's version decides some of them."""
    path = [*(str(folder.path) for folder in foundation), *sys.path]
    version = next(found.version for found in metadata.distributions(name="torch", path=path))
    tier = ".".join(version.split(".")[:2])
    listed = for_torch(version)
    if any(metadata.distributions(name=TAGS_ON_CUDA)):
        listed = tuple(line for line in listed if not line.startswith("onnxruntime"))
    return Folder(f"torch{tier}", listed, with_dependencies=False)


def install(folder: Folder, progress: Progress = print) -> None:
    """Fills a folder unless that is done already; waits where another process is at it. Raises PackageProblem."""
    if folder.finished:
        return
    try:
        parent().mkdir(parents=True, exist_ok=True)
        with Lock(parent() / "lock").take(WAIT_SECONDS):
            if not folder.finished:
                _install_whole(folder, progress)
    except (OSError, Taken) as error:
        raise PackageProblem(
            f"The packages cannot be written to {parent()}: {error}."
            f" Make room or give yourself the right to write there, or name another folder in {PARENT_VARIABLE}."
        ) from error


def _install_whole(folder: Folder, progress: Progress) -> None:
    for leftover in (*parent().glob(".part-*"), folder.path):  # of an installation that was cut off
        shutil.rmtree(leftover, ignore_errors=True)
    part = parent() / f".part-{uuid.uuid4().hex[:8]}"
    part.mkdir()
    try:
        progress(f"Installing {len(folder.requirements)} packages into {folder.path} (once)")
        _pip(part, folder, progress)
        (part / STAMP).write_text(folder.stamp, encoding="utf-8")
        part.rename(folder.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _pip(target: Path, folder: Folder, progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "install", "--target", str(target), "--progress-bar", "off", "--no-input"]
    command += [] if folder.with_dependencies else ["--no-deps"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    lines = []
    with subprocess.Popen(
        [*command, *folder.requirements],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
    ) as pip:
        for line in pip.stdout or ():
            lines.append(line.strip())
            if line.startswith("Collecting "):
                progress(f"  {line.split()[1]}")
    if pip.returncode:
        raise PackageProblem(why(lines))


def why(lines: Iterable[str]) -> str:
    """What pip's lines say went wrong, and what to do about it, in two sentences."""
    lines = tuple(lines)
    for pattern, cause, remedy in CAUSES:
        if any(re.search(pattern, line) for line in lines):
            return f"The packages could not be installed: {cause}. {remedy} and start again."
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or list(lines[-1:])
    return f"The packages could not be installed: pip says {'; '.join(errors)!r}. Put that right and start again."

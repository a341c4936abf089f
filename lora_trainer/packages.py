"""The training packages: kept in folders of our own, so that nothing of the host's Python is ever changed.

Standard library only, because this runs before anything is installed.

A folder is named by Python version, torch version and a hash of its list (packages/py311-torch2.13-1a2b3c4d). It is
filled beside its place and renamed, so an interrupted installation leaves nothing that looks finished.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lora_trainer.locks import Lock, Taken, is_taken

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("packages.txt")
PARENT_VARIABLE = "LORA_TRAINER_PACKAGES"
FOUNDATION = ("torch", "numpy", "pillow")  # the running Python's own, where it has them
BITSANDBYTES_BELOW_TORCH = {(2, 3): "0.45.5", (2, 4): "0.49.2"}  # the newest that loads with a torch below the key
TAGS_ON_CUDA = "onnxruntime-gpu"  # 300 MB, so never fetched; the running Python's own is used where it is there
NEEDED_GB = 1  # room for the training packages
NEEDED_FOR_TORCH_GB = 10
SOURCE_ONLY = ("dadaptation",)  # no wheel of it is to be had
BUILD_TOOLS = ("setuptools", "wheel")
# What is taken from the host besides the foundation: other makers' devices, which torch loads by itself; SOCKS, which
# requests asks for; Pillow's plugin; what others look for among the loaded modules.
ADDITIONS = (
    TAGS_ON_CUDA, "torch-npu", "torch-directml", "intel-extension-for-pytorch", "triton-windows", "pysocks",
    "pillow-avif-plugin", "pip", *BUILD_TOOLS,
)  # fmt: skip
SITE_FOLDERS = ("site-packages", "dist-packages")
WINDOWLESS: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)  # on Windows
WEB = "web"  # the kind of the folders of packages that show a page: for no worker, whose own would be hidden by them
STAMP = "installed.txt"
WAIT_SECONDS = 3600.0
NOT_INSTALLED = "The training packages are not installed yet."
DAMAGED = "Install the training packages again, at the top of the tab or by `python -m lora_trainer setup --again`."
INTERRUPTED = "The installation of the training packages was interrupted."
RENAME_TRIES, RENAME_PAUSE_SECONDS = 20, 0.5
FETCHED = 0.85  # the part of an installation after which everything is fetched
# What pip prints -> what is wrong, and what to do.
CAUSES = (
    (r"No module named pip\b", "this Python has no pip", "Install pip (https://pip.pypa.io/en/stable/installation/)"),
    (
        r"No space left on device|not enough space on the disk|Disk quota exceeded",
        "the disk is full",
        f"Make room ({NEEDED_GB} GB, or {NEEDED_FOR_TORCH_GB} where torch is missing), or name a folder on another disk"
        f" in {PARENT_VARIABLE},",
    ),
    (
        r"Long Path support",
        "the folder's path is too long for Windows",
        f"Name a shorter one in {PARENT_VARIABLE}, or allow long paths in Windows,",
    ),
    (
        r"NewConnectionError|NameResolutionError|ConnectTimeoutError|ProxyError|Network is unreachable",
        "the package index cannot be reached",
        "Connect to the internet",
    ),
)

Progress = Callable[[str, float], None]  # a line, and how much of the folder is done, from 0 to 1


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


def say(line: str, share: float) -> None:
    """A Progress that prints the line."""
    print(line, flush=True)


def ensure(progress: Progress = say, again: bool = False) -> tuple[Path, ...]:
    """Installs what is missing and returns the private folders, first on the path first.

    Returns no folder where this project is installed in the running Python (`pip install -e .`), which then has all it
    needs. `again`: the training packages anew, even where they are there. Raises PackageProblem.
    """
    if is_installed():
        return ()
    foundation = _foundation()
    for folder in foundation:
        install(folder, progress)
    training = _training(foundation)
    install(training, progress, again)
    return (training.path, *(folder.path for folder in foundation))


def lacking() -> str:
    """Why the packages cannot be used yet, in a sentence; "" where they can.

    Where another process is installing them, they lack until it has ended. Raises PackageProblem where they cannot be
    had at all.
    """
    if is_installed() or all(folder.finished for folder in _folders()):
        return ""
    interrupted = any(parent().glob(".part-*")) and not is_being_filled()
    return INTERRUPTED if interrupted else NOT_INSTALLED


def is_being_filled() -> bool:
    """Whether a process is installing packages."""
    return is_taken(parent() / "lock")


def activate() -> tuple[Path, ...]:
    """Puts the private folders first on `sys.path` and hides the host's other packages; returns the folders.

    To be called before other imports. PYTHONPATH would not do: an embedded Python ignores it. Raises PackageProblem
    where the packages are not installed.
    """
    if is_installed():
        return ()
    if lacking():
        raise PackageProblem(
            f"The training packages are not installed in {parent()}."
            f" Install them at the top of the tab, or run `{sys.executable} -m lora_trainer setup` in {ROOT}."
        )
    paths = tuple(folder.path for folder in _folders())
    sys.path[:] = dict.fromkeys((*map(str, paths), *sys.path))
    _hide_the_hosts()
    return paths


def _hide_the_hosts() -> None:
    """Has the host's packages count as not installed in this process, but for torch and what that needs.

    Our libraries take up a hundred others where they are there, and one that is broken, or of another torch, would take
    them along. What is imported already, or comes before the host's on the path, stays.
    """
    hosts = [Path(entry) for entry in sys.path if Path(entry).name in SITE_FOLDERS]
    before = [Path(entry) for entry in sys.path if Path(entry) not in hosts]
    kept = {*_modules_of(_needed((*FOUNDATION, *ADDITIONS))), *_modules_in(before)}
    for name in _modules_in(hosts) - kept:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # the import system's own sign for it


def _modules_in(folders: Iterable[Path]) -> set[str]:
    """The names that can be imported from these folders."""
    entries = (entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir())
    return set(filter(str.isidentifier, (entry.partition(".")[0] for entry in entries)))


def _needed(roots: Iterable[str]) -> set[str]:
    """The names of the distributions that these need, themselves too; of their extras, those that are asked for."""
    needed: set[str] = set()
    waiting = [(name, False) for name in roots]
    while waiting:
        name, with_extras = waiting.pop()
        if name not in needed:
            needed.add(name)
            lines = (line for found in metadata.distributions(name=name) for line in found.requires or ())
            fitting = (line for line in lines if with_extras or "extra ==" not in line)
            waiting += [(name_of(line), "[" in line.partition(";")[0]) for line in fitting]
    return needed


def _modules_of(names: Iterable[str]) -> set[str]:
    """What can be imported of these distributions, whether they name it or only list their files."""
    modules = {"PIL"}
    for name in names:
        modules.add(name.replace("-", "_"))
        for found in metadata.distributions(name=name):
            named = (found.read_text("top_level.txt") or "").split()
            modules.update(named or (file.parts[0].partition(".")[0] for file in found.files or ()))
    return modules


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


def _folders() -> tuple[Folder, ...]:
    """The folders that this Python needs, first on the path first; without torch, only the one that gets it."""
    foundation = _foundation()
    return (_training(foundation), *foundation) if all(folder.finished for folder in foundation) else foundation


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
    if _is_embedded() and not all(map(importlib.util.find_spec, BUILD_TOOLS)):
        listed = tuple(line for line in listed if name_of(line) not in SOURCE_ONLY)
    return Folder(f"torch{tier}", listed, with_dependencies=False)


def _is_embedded() -> bool:
    """Whether this Python looks at no variables, as that of the WebUI's package for Windows.

    There pip cannot show a package that it builds the tools that it has fetched for that.
    """
    return bool(sys.flags.ignore_environment)


def install(folder: Folder, progress: Progress = say, again: bool = False) -> None:
    """Fills a folder unless that is done already; waits where another process is at it. Raises PackageProblem.

    `again`: in any case; the packages that are there stay in place until the other ones have come.
    """
    if folder.finished and not again:
        return
    try:
        parent().mkdir(parents=True, exist_ok=True)
        if is_being_filled():
            progress("Another process is installing packages, and this one waits for it.", 0.0)
        with Lock(parent() / "lock").take(WAIT_SECONDS):
            if again or not folder.finished:
                _install_whole(folder, progress)
    except (OSError, Taken) as error:
        raise PackageProblem(
            f"The packages cannot be written to {parent()} ({error})."
            f" Make room or give yourself the right to write there, or name another folder in {PARENT_VARIABLE}."
        ) from error


def _install_whole(folder: Folder, progress: Progress) -> None:
    _remove_parts()  # of an installation that was cut off
    _check_room(folder)
    part = parent() / f".part-{uuid.uuid4().hex[:8]}"
    part.mkdir()
    try:
        progress(f"Installing {len(folder.requirements)} packages into {folder.path} (once)", 0.0)
        _pip(part, folder, progress)
        (part / STAMP).write_text(folder.stamp, encoding="utf-8")
        if folder.path.exists():  # damaged
            folder.path.rename(part.with_name(f"{part.name}-old"))
        _rename(part, folder.path)
    finally:
        _remove_parts()


def _rename(part: Path, place: Path) -> None:
    """On Windows, a scanner may hold files for some seconds after they were written."""
    for _ in range(RENAME_TRIES):
        try:
            part.rename(place)
            return
        except PermissionError:
            time.sleep(RENAME_PAUSE_SECONDS)
    part.rename(place)


def _remove_parts() -> None:
    for part in parent().glob(".part-*"):
        shutil.rmtree(part, ignore_errors=True)


def _check_room(folder: Folder) -> None:
    """A disk that pip would fill up is no good to anybody else either. PackageProblem."""
    names = map(name_of, folder.requirements)
    needed = (NEEDED_FOR_TORCH_GB if "torch" in names else NEEDED_GB) << 30
    if shutil.disk_usage(parent()).free < needed:
        raise PackageProblem(why(["No space left on device"]))


def _pip(target: Path, folder: Folder, progress: Progress) -> None:
    command = [sys.executable, "-m", "pip", "install", "--target", str(target), "--progress-bar", "off", "--no-input"]
    command += [] if folder.with_dependencies else ["--no-deps"]
    command += ["--no-build-isolation"] if _is_embedded() else []
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        [*command, *folder.requirements],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        encoding="utf-8",
        errors="replace",
        creationflags=WINDOWLESS,
    ) as pip:
        for line in pip.stdout or ():
            lines.append(line.strip())
            progress(f"  {lines[-1]}", _share(lines, folder))
    if pip.returncode:
        raise PackageProblem(why(lines))


def _share(lines: list[str], folder: Folder) -> float:
    """How much of an installation is done, of which pip has printed these lines."""
    if any(line.startswith("Installing collected") for line in lines[-2:]):
        return FETCHED
    collected = sum(line.startswith(("Collecting ", "Processing ")) for line in lines)
    return FETCHED * min(collected / len(folder.requirements), 1.0)


def why(lines: Iterable[str]) -> str:
    """What pip's lines say went wrong, and what to do about it, in two sentences."""
    lines = tuple(lines)
    for pattern, cause, remedy in CAUSES:
        if any(re.search(pattern, line) for line in lines):
            return f"The packages could not be installed: {cause}. {remedy} and start again."
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or list(lines[-1:])
    return f"The packages could not be installed: pip says {'; '.join(errors)!r}. Put that right and start again."

"""Names in a folder: in an order that no file system changes, and matched by stem."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath

from lora_trainer.config import BadInput, Problem


def listed(folder: Path, setting: str) -> list[Path]:
    """The folder's entries in natural order (2 before 10), hidden ones and macOS's leftovers aside.

    Raises BadInput about `setting` where the folder is missing, is a file or cannot be opened.
    """
    try:
        entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
    except FileNotFoundError:
        raise BadInput(Problem(setting, str(folder), "there is no such folder", "Check its name.")) from None
    except NotADirectoryError:
        raise BadInput(Problem(setting, str(folder), "is no folder", "Name the folder it lies in.")) from None
    except OSError as error:
        problem, remedy = f"cannot be opened ({error.strerror})", "Check the folder and the rights to it."
        raise BadInput(Problem(setting, str(folder), problem, remedy)) from error
    return sorted(entries, key=natural)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over: by its dot, or as one that macOS leaves in a zip."""
    return name.startswith(".") or name == "__MACOSX"


def natural(path: PurePath) -> tuple[tuple[str | int, ...], str]:
    """The key that sorts names as people count: 2 before 10, capitals or not."""
    return natural_name(path.name)


@lru_cache(maxsize=1 << 16)  # a set of 10,000 pictures is sorted whenever it is shown
def natural_name(name: str) -> tuple[tuple[str | int, ...], str]:
    pieces = re.split(r"(\d+)", name.casefold())
    return tuple(int(piece) if index % 2 else piece for index, piece in enumerate(pieces)), name


def with_ending(paths: Iterable[Path], endings: Sequence[str]) -> list[Path]:
    """The files whose ending, in capitals or not, is one of `endings`."""
    return [path for path in paths if path.suffix.lower() in endings and path.is_file()]


def stem(path: PurePath) -> str:
    """The name without its ending; in one Unicode form, as macOS writes accents and kana marks in another."""
    return unicodedata.normalize("NFC", path.stem)


def unreadable(path: Path, problem: str, remedy: str) -> BadInput:
    """The error about one file of the dataset, named with its folder."""
    return BadInput(Problem("subsets", f"{path.parent.name}/{path.name}", problem, remedy))


def by_stem(paths: Iterable[Path], endings: Sequence[str]) -> dict[str, Path]:
    """Files with one of the endings, by stem; of several with one stem, the first."""
    found: dict[str, Path] = {}
    for path in with_ending(paths, endings):
        found.setdefault(stem(path), path)
    return found


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

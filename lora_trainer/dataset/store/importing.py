"""Pictures brought into a set: all of them or, where anything comes between, none.

They are first put into a folder of the set's own, named `import-X.part` while it is filled and `import-X.whole` once
all of it is on the disk. From then on it only moves in, and whoever opens the set next goes on where a kill ended it.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.folders import ORIGINALS, is_named
from lora_trainer.dataset.store.contents import Contents
from lora_trainer.dataset.store.gathering import Item, gather
from lora_trainer.dataset.store.index import HOME
from lora_trainer.dataset.store.names import free_stem, safe_stem, stem_key
from lora_trainer.dataset.store.sources import is_caption
from lora_trainer.dataset.store.staging import Staging, Wishes
from lora_trainer.files import sync_folder

_PART, _WHOLE = ".part", ".whole"
_LOCK = "import.lock"
_STOPPED = "The import was stopped; nothing was added to the set."


class Stop(Protocol):
    wanted: bool


@dataclass(frozen=True)
class Imported:
    """Pictures added, and those whose very bytes the set had; what could not be used; what else one should know."""

    added: int
    already: int
    left_out: tuple[Problem, ...]
    notices: tuple[str, ...]


def import_pictures(
    dataset_folder: Path,
    sources: Sequence[Path],
    *,
    folder_name: str,
    background: str = "white",
    caption_extension: str = ".txt",
    report: Callable[..., None] | None = None,
    stop: Stop | None = None,
) -> Imported:
    """Adds the pictures of files, folders and zips to `dataset_folder/folder_name`, with the captions beside them.

    Pictures in folders named `10_name` keep those. Each file goes into `originals/` as it came, and what `develop`
    makes of it with `background` into its folder under the same stem, which is unique in the set. Captions become UTF-8
    files with `caption_extension`; one that cannot be read goes into `originals/`. `report("phase", name="importing",
    done=3, of=20)` is called up to a hundred times; `stop` is looked at between pictures and leaves the set as it was.

    Raises BadInput, with the set as it was, where a source is missing or refused, where no picture can be used, where
    the set cannot be written (a full disk) or is being imported into by another process.
    """
    with ExitStack() as stack:
        gathered = gather(sources, dataset_folder, caption_extension, stack)
        if not dataset_folder.exists():
            stack.callback(_unmade, dataset_folder)
        stack.enter_context(_writing(dataset_folder))
        stack.enter_context(_alone(dataset_folder))
        finished = _finish(dataset_folder)
        wishes = Wishes(folder_name, background, caption_extension)
        staging = Staging(stack.enter_context(_part(dataset_folder)), Contents(dataset_folder), wishes)
        if not _fill(staging, gathered.items, report, stop):
            return Imported(0, 0, (), (_STOPPED,))
        left_out = (*gathered.problems, *staging.left_out)
        if not staging.added + staging.already:
            remedy = " ".join(gathered.notices) or "Name other sources."
            reason = Problem("pictures", None, "no picture that can be imported was found", remedy)
            raise BadInput([reason, *left_out])
        if staging.added:
            staging.close()
            whole = _whole(staging.path)
            with _writing(dataset_folder, "the import goes on when the set is opened again"):
                _move_in(dataset_folder, whole)
    notices = (*finished, *gathered.notices, *staging.notices())
    return Imported(staging.added, staging.already, left_out, notices)


def folder_for(dataset_folder: Path, repeats: int, trigger_word: str) -> tuple[str, str]:
    """The folder that pictures without one of their own join, and the one that would be made for them.

    They are the same but where the set has one folder of pictures already.
    """
    asked = f"{repeats}_{safe_stem(trigger_word or dataset_folder.name)}"
    there = [path.name for path in dataset_folder.glob("*/") if path.is_dir() and is_named(path.name)]
    return (there[0] if len(there) == 1 else asked), asked


def finish_imports(dataset_folder: Path) -> list[str]:
    """Goes on with an import that was killed, or removes what it left; sentences about it. Raises BadInput.

    Does nothing while another process imports into the set.
    """
    if not _leftovers(dataset_folder):
        return []
    try:
        with _writing(dataset_folder), _alone(dataset_folder):
            return _finish(dataset_folder)
    except _Busy:
        return []


class _Busy(BadInput):
    """Another process imports into the set."""


@contextmanager
def _writing(folder: Path, outcome: str = "it stays as it was") -> Iterator[None]:
    """Whatever the disk refuses becomes BadInput, which says what became of the set."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Make room on the disk, then import again." if full else "Check the folder and the rights to it."
        problem = f"cannot be written ({error.strerror or error}); {outcome}"
        raise BadInput(Problem("dataset", str(folder), problem, remedy)) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from importing into the set, until this one ends in whatever way. Raises _Busy."""
    (folder / HOME).mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / HOME / _LOCK, timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("PRAGMA journal_mode = OFF")  # nothing is ever written into it
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise OSError(str(error)) from error
            problem, remedy = "is being imported into already", "Wait for that import to end."
            raise _Busy(Problem("dataset", str(folder), problem, remedy)) from error
        yield


def _unmade(folder: Path) -> None:
    """Takes away a set's folder that holds nothing but the lock: no picture has come into it."""
    with contextlib.suppress(OSError):
        if [*folder.iterdir()] == [folder / HOME] and [*(folder / HOME).iterdir()] == [folder / HOME / _LOCK]:
            (folder / HOME / _LOCK).unlink()
            (folder / HOME).rmdir()
            folder.rmdir()


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A new folder to fill; what is left of it in the end goes away."""
    part = Path(tempfile.mkdtemp(prefix="import-", suffix=_PART, dir=folder / HOME))
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(staging: Staging, items: Sequence[Item], report: Callable[..., None] | None, stop: Stop | None) -> bool:
    """Whether all items were staged, or else `stop` was wanted."""
    tell_every = max(1, len(items) // 100)
    with closing(ahead(staging.fetch, enumerate(items))) as fetched:
        for done, (item, arrived) in enumerate(zip(items, fetched), 1):
            staging.admit(item, arrived)
            if stop is not None and stop.wanted:
                return False
            if report and (done % tell_every == 0 or done == len(items)):
                report("phase", name="importing", done=done, of=len(items))
    return True


def _whole(part: Path) -> Path:
    """The filled folder under the name that says so: the moment from which the import has happened."""
    whole = part.rename(part.with_suffix(_WHOLE))
    sync_folder(whole.parent)
    return whole


def _leftovers(folder: Path) -> list[Path]:
    return sorted((folder / HOME).glob("import-*.*"))


def _finish(folder: Path) -> list[str]:
    sentences = []
    for left in _leftovers(folder):
        if left.suffix == _WHOLE:
            _move_in(folder, left)
            sentences.append("An import that was interrupted has been completed.")
        else:
            shutil.rmtree(left)
            sentences.append("An import that was interrupted before its end has been undone.")
    return sentences


def _move_in(folder: Path, whole: Path) -> None:
    """Moves the files to their places: originals, then captions, then pictures, so that none is ever without its own.

    Overwrites nothing, and may be called again for what an earlier call left.
    """
    others = _other_stems(folder, whole)
    for file in _in_order(whole):
        target = folder / file.parent / f"{others.get(file.stem, file.stem)}{file.suffix}"
        target.parent.mkdir(exist_ok=True)
        (whole / file).rename(target)
    for place in whole.iterdir():
        sync_folder(folder / place.name)
    sync_folder(folder)
    shutil.rmtree(whole)


def _in_order(whole: Path) -> Iterator[Path]:
    """The files, as paths within: originals, then captions, then pictures."""
    for turn in range(3):
        for place in sorted(whole.iterdir()):
            files = (Path(place.name, name) for name in sorted(path.name for path in place.iterdir()))
            yield from (file for file in files if _turn(file) == turn)


def _turn(file: Path) -> int:
    return 0 if file.parent.name == ORIGINALS else 1 if is_caption(file) else 2


def _other_stems(folder: Path, whole: Path) -> dict[str, str]:
    """Stems for files whose place somebody has taken since they were named: nothing is overwritten."""
    clashing = dict.fromkeys(file.stem for file in _in_order(whole) if (folder / file).exists())
    if not clashing:
        return {}
    taken = Contents(folder).stems | {stem_key(file.stem) for file in _in_order(whole)}
    return {stem: free_stem(stem, taken) for stem in clashing}

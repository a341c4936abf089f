"""A tagger's files: from the models folder, from the hub's cache, or downloaded into the models folder."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.config import BadInput, Problem
from lora_trainer.jobs.events import Report
from lora_trainer.tagging.taggers import TAGGERS, Weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANSWER_SECONDS = 10.0  # how long the hub may take to answer
TOLD_SECONDS = 0.5  # between two reports of a download


def folder_with(name: str, models: Path, report: Report) -> Path:
    """The folder that has all files of the tagger `name`, downloaded where no folder has them.

    Reports "download" with the bytes `done` and in `total`. What a broken download has fetched is not fetched again.
    Raises BadInput, with the files' names and their place, where they cannot be had.
    """
    weights = TAGGERS[name]
    own = models / "taggers" / name
    for folder in (own, _cached(weights)):
        if folder and all((folder / file).is_file() for file in weights.files):
            return folder
    try:
        _download(name, own, report)
    except (OSError, RuntimeError) as error:  # the hub's errors are OSErrors; its transport hf_xet has RuntimeErrors
        raise _not_had(name, own, error) from error
    return own


def _cached(weights: Weights) -> Path | None:
    """The folder of the hub's cache, which other programs fill too, or None."""
    from huggingface_hub import try_to_load_from_cache

    top = next(file for file in weights.files if "/" not in file)
    found = try_to_load_from_cache(weights.repository, top)
    return Path(found).parent if isinstance(found, str) else None


def _download(name: str, folder: Path, report: Report) -> None:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    weights = TAGGERS[name]
    # Asked first, because it fails at once where hf_hub_download tries for half a minute.
    known = HfApi().model_info(weights.repository, files_metadata=True, timeout=ANSWER_SECONDS)
    total = sum(entry.size or 0 for entry in known.siblings or () if entry.rfilename in weights.files)
    disable_progress_bars()
    with _reported(name, folder, total, report):
        for file in weights.files:
            if not (folder / file).is_file():  # one that somebody put there stays
                hf_hub_download(weights.repository, file, revision=known.sha, local_dir=folder)


@contextmanager
def _reported(name: str, folder: Path, total: int, report: Report) -> Iterator[None]:
    """Reports how many bytes have come into the folder, every TOLD_SECONDS and when the block has ended well."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TOLD_SECONDS):
            report("download", name=name, done=min(_bytes_in(folder), total), total=total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    report("download", name=name, done=total, total=total)


def _bytes_in(folder: Path) -> int:
    """Whole and half files; the hub keeps the half ones in a hidden folder of it."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed in the meantime
            continue
    return total


def _not_had(name: str, folder: Path, error: OSError | RuntimeError) -> BadInput:
    from huggingface_hub import constants

    weights = TAGGERS[name]
    files = [f"{file} ({size:g} MB)" for file, size in weights.files.items() if not (folder / file).is_file()]
    response = getattr(error, "response", None)
    if getattr(error, "errno", None) == errno.ENOSPC:
        cause, first = "the disk is full", "Make room"
    elif isinstance(error, PermissionError):
        cause, first = f"{folder} cannot be written", "Give yourself the right to write there"
    elif response is not None:
        cause, first = f"{constants.ENDPOINT} refuses them (answer {response.status_code})", "Try again later"
    else:
        cause, first = f"{constants.ENDPOINT} cannot be reached", "Connect to the internet"
    page, them = f"{constants.ENDPOINT}/{weights.repository}/tree/main", "it" if len(files) == 1 else "them"
    remedy = f"{first}, or download {_list(files)} from {page} and put {them} into {folder}."
    return BadInput(Problem("tagger", name, f"its files are not here and {cause}", remedy))


def damaged(path: Path, problem: str) -> BadInput:
    """The error about a tagger's file, or a folder of them, that cannot be used as it is."""
    remedy = f"Delete {path} and start again to download it, or copy it again."
    return BadInput(Problem("tagger", f"{path.parent.name}/{path.name}", problem, remedy))


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json. Raises BadInput where it is damaged."""
    from tokenizers import Tokenizer

    try:
        text = path.read_text(encoding="utf-8")
        json.loads(text)  # of what is cut off, tokenizers itself says no more than Exception
    except ValueError as error:
        raise damaged(path, f"is damaged or cut off ({error})") from error
    return Tokenizer.from_str(text)


def _list(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)

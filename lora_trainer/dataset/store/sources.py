"""The files of a source: a folder's, however deep, or ones named singly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

from PIL import Image

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.folders import CAPTION_ENDINGS
from lora_trainer.dataset.listing import listed
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.names import readable

BLOCK = 1 << 18  # bytes read at a time
_OTHER_NAMES = (".jpe", ".jfif", ".apng")  # of formats in PICTURE_ENDINGS
SOURCE_ENDINGS = PICTURE_ENDINGS + tuple(end for end in _OTHER_NAMES if end in Image.registered_extensions())
_JUNCTION = 0xA0000003  # the tag of Windows' other kind of link to a folder


@dataclass(frozen=True, eq=False, slots=True)
class Member:
    """A file of a source: its name for a message, its place in the source, and its bytes, which may raise BadInput.

    There may be very many of them, so that they hold little.
    """

    shown: str
    place: str
    blocks: Callable[[], Iterator[bytes]]

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.place)


def folder_members(folder: Path, aside: Path, links: list[str], problems: list[Problem]) -> Iterator[Member]:
    """The folder's files in natural order, those of folders in it after its own, but for hidden ones and those of the
    (resolved) folder `aside`.

    Links are not followed, but named in `links`; folders that cannot be opened are named in `problems`. Raises BadInput
    where that is the folder itself.
    """
    pending = [folder]
    while pending:
        current = pending.pop()
        try:
            entries = listed(current, "pictures")
        except BadInput as error:
            if current == folder:
                raise
            problems += error.problems
            continue
        inner = []
        for entry in entries:
            place = entry.relative_to(folder.parent).as_posix()
            if _is_link(entry):
                links.append(readable(place))
            elif entry.is_dir():
                inner.append(entry)
            elif entry.is_file():
                yield file_member(entry, place, place)
        pending += (entry for entry in reversed(inner) if entry.resolve() != aside)


def file_member(file: Path, name: str, place: str) -> Member:
    shown = readable(name)
    return Member(shown, place, partial(_blocks, str(file), shown))


def is_picture(path: PurePath) -> bool:
    return path.suffix.lower() in SOURCE_ENDINGS


def is_caption(path: PurePath) -> bool:
    return path.suffix.lower() in CAPTION_ENDINGS


def cannot_be_read(shown: str, error: Exception) -> BadInput:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return BadInput(Problem(shown, None, f"cannot be read ({reason})", "Copy it again, or check the rights to it."))


def _is_link(entry: Path) -> bool:
    return entry.is_symlink() or getattr(entry.lstat(), "st_reparse_tag", 0) == _JUNCTION


def _blocks(file: str, shown: str) -> Iterator[bytes]:
    try:
        with Path(file).open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block
    except OSError as error:
        raise cannot_be_read(shown, error) from error

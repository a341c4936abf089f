"""Everything that the sources of an import hold: pictures paired with their captions, and what is not imported."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lora_trainer.config import BadInput, Problem
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset.folders import CAPTION_ENDINGS, is_named
from lora_trainer.dataset.listing import some
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.archive import zip_members
from lora_trainer.dataset.store.names import stem_key
from lora_trainer.dataset.store.sources import (
    Member,
    cannot_be_read,
    file_member,
    folder_members,
    is_caption,
    is_picture,
)

_MOST_REPEATS = 1000  # more is no count but a year: 2024_Rome
_REGULARISATION = ("reg", "regularisation", "regularization")  # kohya_ss's folder of what is not to be learned

Key = Callable[[Member], Hashable]


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to import with its captions, the one to use first; its own `10_name` folder's name, "" without one."""

    picture: Member
    captions: tuple[Member, ...]
    folder: str


@dataclass(frozen=True)
class Gathered:
    """The pictures of all sources; what cannot be opened; and in whole sentences what is not imported, and why."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def gather(sources: Sequence[Path], dataset: Path, caption_ending: str, stack: ExitStack) -> Gathered:
    """What the sources hold, each in natural order; zips stay open as long as `stack`.

    The set in `dataset` is passed over where it lies in a source. Pictures in folders named `10_name` keep those; a
    source with such folders is read as sd-scripts reads it, from those alone. Of two captions of a picture that with
    `caption_ending` is the one to use. Raises BadInput with what is wrong with any of the sources.
    """
    gathered = Gathered()
    refused: list[Problem] = []
    files: list[Path] = []
    for source in sources:
        try:
            if source.is_dir():
                members = _of_folder(source, dataset, gathered)
            elif source.suffix.lower() == ".zip" and source.is_file():
                members = zip_members(source, stack)
            else:
                files.append(_usable(source))
                continue
        except BadInput as error:
            refused += error.problems
        except OSError as error:
            refused += cannot_be_read(str(source), error).problems
        else:
            _add(gathered, members, caption_ending, (_exact, _folded))
    if refused:
        raise BadInput(refused)
    _add_files(gathered, files, caption_ending)
    return gathered


def _of_folder(source: Path, dataset: Path, gathered: Gathered) -> list[Member]:
    source, dataset = source.resolve(), dataset.resolve()
    if source.is_relative_to(dataset):
        remedy = "Name the folder that the pictures come from."
        raise BadInput(Problem("pictures", str(source), "lies in the set that they would be added to", remedy))
    links: list[str] = []
    members = list(folder_members(source, dataset, links, gathered.problems))
    if links:
        gathered.notices.append(f"Links are not followed: {some(links)}.")
    return members


def _usable(file: Path) -> Path:
    if not file.is_file():
        raise BadInput(Problem("pictures", str(file), "there is no such file or folder", "Check its name."))
    if not (is_picture(file) or is_caption(file)):
        remedy = f"Name pictures ({' '.join(PICTURE_ENDINGS)}), a folder or a zip."
        raise BadInput(Problem("pictures", str(file), "is no picture", remedy))
    return file


def _add_files(gathered: Gathered, files: Sequence[Path], caption_ending: str) -> None:
    """Files named singly, with the captions that lie beside them; a browser uploads each into a folder of its own."""
    beside = (file.with_suffix(ending) for file in files if is_picture(file) for ending in CAPTION_ENDINGS)
    every = dict.fromkeys([*files, *(file for file in beside if _is_there(file))])
    members = [file_member(file, file.name, file.absolute().as_posix()) for file in every]
    _add(gathered, members, caption_ending, (_exact, _folded, lambda member: stem_key(member.path.stem)), False)


def _is_there(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # the name would be too long
        return False


def _add(
    gathered: Gathered, members: Sequence[Member], caption_ending: str, keys: Sequence[Key], keep_folders: bool = True
) -> None:
    pictures = [member for member in members if is_picture(member.path)]
    captions = [member for member in members if is_caption(member.path)]
    captions.sort(key=lambda member: member.path.suffix.lower() != caption_ending)
    paired = _paired(pictures, captions, keys)
    folders = [_kept_folder(picture.path) if keep_folders else "" for picture in pictures]
    wanted = any(folders)
    for picture, folder in zip(pictures, folders):
        if folder is not None and bool(folder) == wanted:
            gathered.items.append(Item(picture, tuple(paired.get(picture, ())), folder))
    _tell_what_is_not(gathered, members, {caption for found in paired.values() for caption in found})


def _exact(member: Member) -> Hashable:
    return member.place.rpartition("/")[0], member.path.stem


def _folded(member: Member) -> Hashable:
    """Capitals or not, and as macOS writes accents too."""
    return member.place.rpartition("/")[0], stem_key(member.path.stem)


def _paired(pictures: Sequence[Member], captions: Sequence[Member], keys: Sequence[Key]) -> dict[Member, list[Member]]:
    """Each picture's captions, found by the first of the keys; a later one finds those that no picture has yet."""
    paired: dict[Member, list[Member]] = {}
    for key in keys:
        taken = {caption for found in paired.values() for caption in found}
        free: dict[Hashable, list[Member]] = {}
        for caption in captions:
            if caption not in taken:
                free.setdefault(key(caption), []).append(caption)
        for picture in pictures:
            if picture not in paired and key(picture) in free:
                paired[picture] = free[key(picture)]
    return paired


def _kept_folder(path: PurePosixPath) -> str | None:
    """The innermost folder that says its repeats, "" where none does, None where it is one of regularisation."""
    if is_named(path.parent.name) and any(part.lower() in _REGULARISATION for part in path.parts[:-2]):
        return None
    named = (part for part in reversed(path.parts[:-1]) if is_named(part))
    return next((part for part in named if repeats_and_class(part)[0] <= _MOST_REPEATS), "")


def _tell_what_is_not(gathered: Gathered, members: Sequence[Member], paired: set[Member]) -> None:
    """Notices about the members of one source that are not among the items, and why."""
    items = {item.picture: item for item in gathered.items}
    pictures = [member for member in members if is_picture(member.path)]
    kept = dict.fromkeys(items[picture].folder for picture in pictures if picture in items and items[picture].folder)
    passed_over = [picture.shown for picture in pictures if picture not in items]
    alone = [member.shown for member in members if is_caption(member.path) and member not in paired]
    others = [member.shown for member in members if not (is_picture(member.path) or is_caption(member.path))]
    if kept:
        gathered.notices.append(f"Folders that say their repeats are kept: {some(list(kept))}.")
    if passed_over:
        of_folders = "Only pictures of those folders, and none for regularisation, are imported"
        gathered.notices.append(f"{of_folders}; not {some(passed_over)}.")
    if alone:
        gathered.notices.append(f"Texts that belong to no picture are not imported: {some(alone)}.")
    if others:
        endings = " ".join(PICTURE_ENDINGS)
        gathered.notices.append(f"Files that are no pictures ({endings}) are not imported: {some(others)}.")

"""The dataset's folders: their pictures with captions and masks, and what is wrong with the rest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lora_trainer.config import BadInput, Config, Problem, Subset
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset.buckets import Buckets, Size, buckets_for, place
from lora_trainer.dataset.captions import are_tags, read_caption, with_trigger
from lora_trainer.dataset.listing import by_stem, listed, some, stem, unreadable, with_ending
from lora_trainer.dataset.pictures import PICTURE_ENDINGS, check_picture

CAPTION_ENDINGS = (".txt", ".caption")
ORIGINALS, LEFT_OUT = SET_ASIDE = ("originals", "left_out")  # a set's folders beside those that are trained on
_INHERITED = (
    "caption_extension",
    "shuffle_tags",
    "keep_tokens",
    "caption_prefix",
    "caption_suffix",
    "flip",
    "caption_dropout",
    "tag_dropout",
)


@dataclass(frozen=True)
class Picture:
    """One picture of the run. Its size is as seen (EXIF turned); nothing in its subset is None."""

    path: Path
    width: int
    height: int
    caption: str
    subset: Subset
    index: int  # its place in `Found.pictures`
    stamp: tuple[int, int]  # bytes, and nanoseconds of the last change: while both stay, so does the file
    mask: Path | None = None

    @property
    def size(self) -> Size:
        return self.width, self.height


@dataclass(frozen=True)
class Found:
    """`left_out` names what cannot be used; `notices` say in whole sentences what else the user should know."""

    pictures: tuple[Picture, ...]
    left_out: tuple[Problem, ...]
    notices: tuple[str, ...]


def find_pictures(config: Config) -> Found:
    """The pictures of all subsets in natural order of their names, each decoded once to see that it is whole.

    A folder named `10_name` has 10 repeats and the class tokens `name`, as for sd-scripts; a folder with such folders
    in it stands for them. Repeats and class tokens that a subset states itself come first. `config` has its family
    defaults filled in. Raises BadInput with the problems of all folders, or where no picture to train on is left.
    """
    notices: list[str] = []
    folders = _all_folders(config, notices)
    buckets = buckets_for(config)
    masks = _masks(config)
    pictures: list[Picture] = []
    left_out: list[Problem] = []
    for folder in folders:
        results = _read_all(folder, buckets, masks)
        left_out += [result for result in results if isinstance(result, Problem)]
        usable = [result for result in results if isinstance(result, Picture)]
        pictures += _worded(usable, config.trigger_word)
        notices += _caption_notices(folder)
    if all(picture.subset.is_regularisation for picture in pictures):
        reason = Problem("subsets", None, "no picture to train on is left", "Replace the pictures named below.")
        raise BadInput([reason, *left_out])
    numbered = tuple(replace(picture, index=index) for index, picture in enumerate(pictures))
    return Found(numbered, tuple(left_out), tuple(notices))


@dataclass(frozen=True)
class _Folder:
    """A folder that holds pictures: its subset with everything but the shuffling decided, and its files."""

    path: Path
    subset: Subset
    pictures: tuple[Path, ...]
    captions: dict[str, Path]  # by the picture's stem


def _all_folders(config: Config, notices: list[str]) -> list[_Folder]:
    """The folders of all subsets; raises BadInput with what is wrong with any of them."""
    folders: list[_Folder] = []
    problems: list[Problem] = []
    if not any(not subset.is_regularisation for subset in config.subsets):
        problems.append(Problem("subsets", None, "no folder of pictures to train on is given", "Name at least one."))
    for subset in config.subsets:
        try:
            paths = _picture_folders(Path(subset.folder).expanduser(), notices)
        except BadInput as error:
            problems += error.problems
            continue
        for path in paths:
            try:
                folders.append(_folder(path, subset, config))
            except BadInput as error:
                problems += error.problems
    if problems:
        raise BadInput(problems)
    return folders


def _picture_folders(path: Path, notices: list[str]) -> list[Path]:
    """The `10_name` folders in this one, or this one itself where there are none."""
    entries = listed(path, "subsets")
    named = [entry for entry in entries if entry.is_dir() and is_named(entry.name)]
    if not named:
        return [path]
    pictures = with_ending(entries, PICTURE_ENDINGS)
    others = [entry for entry in entries if entry.is_dir() and entry not in named and entry.name not in SET_ASIDE]
    unused = [entry.name for entry in entries if entry in pictures or entry in others]
    if unused:
        notices.append(f"{path.name}: only the folders named like {named[0].name} are used; not {some(unused)}.")
    return named


def is_named(name: str) -> bool:
    """Whether a folder's name says its repeats, as `10_name` does; `0_name` says that it is not used."""
    return repeats_and_class(name)[0] > 0


def _folder(path: Path, subset: Subset, config: Config) -> _Folder:
    entries = listed(path, "subsets")
    pictures = with_ending(entries, PICTURE_ENDINGS)
    if not pictures:
        raise BadInput(_no_pictures(path, entries))
    resolved = _resolved(path, subset, config)
    own_first = sorted(CAPTION_ENDINGS, key=lambda ending: ending != resolved.caption_extension)
    captions: dict[str, Path] = {}
    for ending in own_first:
        captions = by_stem(entries, (ending,)) | captions
    return _Folder(path, resolved, tuple(pictures), captions)


def _resolved(path: Path, subset: Subset, config: Config) -> Subset:
    repeats, class_tokens = repeats_and_class(path.name)
    inherited = {name: getattr(config, name) for name in _INHERITED if getattr(subset, name) is None}
    return replace(
        subset,
        folder=str(path),
        repeats=subset.repeats or repeats or config.repeats,
        class_tokens=subset.class_tokens or class_tokens,
        **inherited,
    )


def _no_pictures(folder: Path, entries: Sequence[Path]) -> Problem:
    texts = with_ending(entries, CAPTION_ENDINGS)
    inner = [entry for entry in entries if entry.is_dir()]
    deeper = [entry.name for entry in inner if with_ending(listed(entry, "subsets"), PICTURE_ENDINGS)]
    remedy = f"Put pictures into it ({' '.join(PICTURE_ENDINGS)})."
    if deeper:
        problem, remedy = "has pictures only in folders inside it", f"Name those instead: {some(deeper)}."
    elif not entries:
        problem = "is an empty folder"
    elif len(texts) == len(entries):
        problem = f"has no pictures, only {len(texts)} text files"
    else:
        problem = f"has no pictures among its {len(entries)} files and folders"
    return Problem("subsets", str(folder), problem, remedy)


def _masks(config: Config) -> dict[str, Path] | None:
    """The mask folder's pictures by stem; None where masks are not taken from a folder. Raises BadInput."""
    if config.masked_loss != "folder":
        return None
    if not config.mask_folder:
        remedy = 'Name the folder of masks, or set masked_loss = "off".'
        raise BadInput(Problem("mask_folder", None, "is not given", remedy))
    return by_stem(listed(Path(config.mask_folder).expanduser(), "mask_folder"), PICTURE_ENDINGS)


def _read_all(folder: _Folder, buckets: Buckets, masks: dict[str, Path] | None) -> list[Picture | Problem]:
    def read(path: Path) -> Picture | Problem:
        try:
            return _picture(path, folder, buckets, masks)
        except BadInput as error:
            return error.problems[0]

    # Pillow decodes outside the interpreter's lock; few at a time, as each is held whole.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, folder.pictures))


def _picture(path: Path, folder: _Folder, buckets: Buckets, masks: dict[str, Path] | None) -> Picture:
    status = path.stat()
    width, height = check_picture(path)
    _check_bucket(path, (width, height), buckets)
    mask = None if masks is None else masks.get(stem(path))
    if mask is not None:
        check_picture(mask)
    elif masks is not None:
        raise unreadable(path, "has no mask", "Add one of the same name to the mask folder.")
    file = folder.captions.get(stem(path))
    caption = folder.subset.class_tokens if file is None else read_caption(file)
    return Picture(path, width, height, caption, folder.subset, 0, (status.st_size, status.st_mtime_ns), mask)


def _check_bucket(path: Path, size: Size, buckets: Buckets) -> None:
    try:
        place(size, buckets)
    except BadInput as error:
        raise unreadable(path, error.problems[0].problem, error.problems[0].remedy) from error


def _worded(pictures: Sequence[Picture], trigger: str) -> list[Picture]:
    """With the trigger word, and with shuffling decided where nobody has: tags are shuffled, sentences are not."""
    shuffle = are_tags([picture.caption for picture in pictures])
    worded = []
    for picture in pictures:
        subset = picture.subset
        caption = picture.caption if subset.is_regularisation else with_trigger(picture.caption, trigger)
        if subset.shuffle_tags is None:
            subset = replace(subset, shuffle_tags=shuffle)
        worded.append(replace(picture, caption=caption, subset=subset))
    return worded


def _caption_notices(folder: _Folder) -> list[str]:
    files = [folder.captions.get(stem(path)) for path in folder.pictures]
    missing = files.count(None)
    others = [file.name for file in files if file and file.suffix.lower() != folder.subset.caption_extension]
    notices = []
    if others:
        notices.append(f"{folder.path.name}: captions are also taken from {some(others)}.")
    if missing:
        caption = f'is "{folder.subset.class_tokens}"' if folder.subset.class_tokens else "stays empty"
        count = f"{missing} of {len(files)}"
        notices.append(f"{folder.path.name}: {count} pictures have no caption file; their caption {caption}.")
    return notices

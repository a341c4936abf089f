"""What a person has changed in the set's folder, taken over into its index."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lora_trainer.config import BadInput
from lora_trainer.dataset.captions import caption_text
from lora_trainer.dataset.folders import ORIGINALS
from lora_trainer.dataset.listing import natural_name, some
from lora_trainer.dataset.pictures import picture_size
from lora_trainer.dataset.store import history, index
from lora_trainer.dataset.store.index import Row, stamp_at
from lora_trainer.dataset.store.scanning import Place, Scan, scan, stem_of

OUTSIDE = "edited outside"
Picture = tuple[str, str, str]  # folder, file, stamp
_UNSEEN = Row(0, "", "", "", 0, 0, "", "", None, "", "", 0, 0)


@dataclass
class _Changes:
    """What differs from the index: pictures by name, captions as a step of the history, sentences about files."""

    added: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    overruled: list[str] = field(default_factory=list)
    step: list[history.Change] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def sentences(self, gone: list[str]) -> list[str]:
        kept = "The captions in these files differ from changes made here; the files' count, and undo brings yours back"
        said = {
            "Pictures added": self.added,
            "Pictures gone": gone,
            "Pictures renamed or moved": self.moved,
            "Pictures replaced": self.replaced,
            "Captions edited outside": self.edited,
            kept: self.overruled,
        }
        in_order = {what: sorted(names, key=lambda name: natural_name(name)) for what, names in said.items()}
        return [f"{what}: {some(names)}." for what, names in in_order.items() if names] + self.unreadable


def refresh(db: sqlite3.Connection, folder: Path, caption_extension: str) -> list[str]:
    """Makes the index as the folder is, within a transaction; returns what has changed, in sentences.

    The text of a caption file that somebody has changed counts, and is an undoable step. Raises BadInput where a folder
    cannot be read.
    """
    found = scan(folder, caption_extension)
    for leftover in found.leftovers:
        with contextlib.suppress(OSError):
            leftover.unlink()
    known = index.rows(db, "TRUE")
    changes = _Changes(unreadable=[_nameless(name) for name in found.nameless])
    pictures = [_with_picture(row, picture, folder, changes) for row, picture in _matched(known, found)]
    captioned = [_with_caption(row, folder, found, changes) for row in pictures]
    current = set(_with_originals(captioned, folder, found))
    present = {row.id for row in current}
    lost = [row for row in known if row.id not in present and not row.gone]
    index.add(db, sorted(row for row in current if not row.id))
    index.change(db, [row for row in current.difference(known) if row.id] + [row._replace(gone=1) for row in lost])
    if changes.step:
        history.record(db, OUTSIDE, changes.step)
    return changes.sentences([row.name for row in lost]) if known else changes.unreadable


def _matched(known: Sequence[Row], found: Scan) -> Iterator[tuple[Row, Picture]]:
    """Each picture with what is known of it: by its place; else by name and stamp, as where its folder was renamed or
    it comes back; by folder and stamp, as where it was renamed; by folder and stem, as where it was saved anew."""
    pictures = [(*place, stamp) for place, stamp in found.pictures.items()]
    rows = sorted(known, key=lambda row: (row.gone, row.id))
    for key in (_place, _name_and_stamp, _folder_and_stamp, _folder_and_stem):
        if not rows or not pictures:
            break
        by_key: dict[Place, list[Row]] = defaultdict(list)
        for row in rows:
            if not row.gone or key is _name_and_stamp:
                by_key[key(row.folder, row.file, row.stamp)].append(row)
        rest, taken = [], set()
        for picture in pictures:
            if candidates := by_key.get(key(*picture)):
                row = candidates.pop(0)
                taken.add(row.id)
                yield row, picture
            else:
                rest.append(picture)
        pictures, rows = rest, [row for row in rows if row.id not in taken]
    yield from ((_UNSEEN, picture) for picture in pictures)


def _place(folder: str, file: str, stamp: str) -> Place:
    return folder, file


def _name_and_stamp(folder: str, file: str, stamp: str) -> Place:
    return file.casefold(), stamp


def _folder_and_stamp(folder: str, file: str, stamp: str) -> Place:
    return folder, stamp


def _folder_and_stem(folder: str, file: str, stamp: str) -> Place:
    return folder, stem_of(file).casefold()


def _with_picture(row: Row, picture: Picture, folder: Path, changes: _Changes) -> Row:
    inner, file, stamp = picture
    name = f"{inner}/{file}".lstrip("/")
    if not row.id or row.gone:
        changes.added.append(name)
    elif stamp != row.stamp:
        changes.replaced.append(name)
    elif (inner, file) != (row.folder, row.file):
        changes.moved.append(name)
    else:
        return row
    row = row._replace(folder=inner, file=file, gone=0)
    if stamp == row.stamp:
        return row
    try:
        width, height = picture_size(folder / inner / file)
    except BadInput as error:
        changes.unreadable += _sentences(error)
        width = height = 0
    same = row.original and stamp_at(folder / ORIGINALS / row.original) == stamp  # two names of one file
    return row._replace(stamp=stamp, width=width, height=height, cut="", original=row.original if same else "")


def _with_caption(row: Row, folder: Path, found: Scan, changes: _Changes) -> Row:
    """A pending caption is given up for a text that somebody has put into the file since, and kept in the history."""
    file, stamp = found.captions.get((row.folder, stem_of(row.file)), ("", ""))
    if stamp == row.caption_stamp:
        return row if file == row.caption_file else row._replace(caption_file=file)
    try:
        text = caption_text(folder / row.folder / file) if file else None
    except BadInput as error:
        changes.unreadable += _sentences(error)
        if row.pending:  # it waits until the file can be read or is gone
            return row._replace(caption_file=file, caption_stamp="")
        text, stamp = None, ""
    if row.id and text != row.caption:
        changes.step.append((row.id, row.caption, text))
        (changes.overruled if row.pending else changes.edited).append(row.name)
    return row._replace(caption=text, caption_file=file, caption_stamp=stamp, pending=0)


def _with_originals(rows: Sequence[Row], folder: Path, found: Scan) -> Iterator[Row]:
    """Pictures that are new here have the original of their stem, where no other picture has the same. Known ones keep
    theirs while it is there: what a person has drawn over is the original from then on."""
    counts = Counter(stem_of(row.file) for row in rows)
    files = set(found.originals.values())
    for row in rows:
        name = stem_of(row.file)
        if not row.id and counts[name] == 1 and name in found.originals:
            yield row._replace(original=found.originals[name])
        elif row.original in files or not row.original or (folder / ORIGINALS / row.original).exists():
            yield row
        else:
            yield row._replace(original="")


def _nameless(name: str) -> str:
    return f"{name}: its name is no text in UTF-8, and it is not used. Rename it."


def _sentences(error: BadInput) -> list[str]:
    return [f"{problem.value}: {problem.problem}. {problem.remedy}" for problem in error.problems]

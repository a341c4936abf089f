"""The sets of pictures that requests ask for: kept open, so that a page of one with 10,000 pictures comes at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lora_trainer.config import BadInput
from lora_trainer.dataset.advisor import TagCount, count_tags
from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.crop import Focus
from lora_trainer.dataset.edits import tag_key
from lora_trainer.dataset.store import Dataset, Entry
from lora_trainer.dataset.store.index import HOME, Damaged
from lora_trainer.dataset.store.thumbnails import Thumbnails

MOST_OPEN = 8


@dataclass(frozen=True)
class Snapshot:
    """A set at one moment: its pictures in their order, and what is counted of their captions once it is asked for."""

    entries: list[Entry]

    @cached_property
    def by_id(self) -> dict[int, Entry]:
        return {entry.id: entry for entry in self.entries}

    @cached_property
    def by_tag(self) -> dict[str, list[Entry]]:
        """The pictures that have a tag, by its `tag_key`."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for key in {tag_key(tag) for tag in tags(entry.line)}:
                found.setdefault(key, []).append(entry)
        return found

    @cached_property
    def counts(self) -> list[TagCount]:
        return count_tags(entry.line for entry in self.entries)


@dataclass
class OpenSet:
    """A set that is kept open. `focuses`: what was found in pictures, by file and stamp."""

    dataset: Dataset
    thumbnails: Thumbnails
    place: tuple[int, int]  # device and inode of its index
    focuses: dict[tuple[Path, str], Focus | None] = field(default_factory=dict)
    users: int = 0
    unwanted: bool = False
    _version: tuple[int, int] | None = None
    _snapshot: Snapshot = field(default_factory=lambda: Snapshot([]))

    @property
    def snapshot(self) -> Snapshot:
        """As the set is now; the same one again while nothing has changed, in this process or in another."""
        version = self.dataset.version
        if version != self._version:
            self._snapshot, self._version = Snapshot(self.dataset.entries()), version
        return self._snapshot

    def close(self) -> None:
        self.thumbnails.close()
        self.dataset.close()


class Sets:
    """At most MOST_OPEN sets stay open, those that were asked for last. Threads share them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: OrderedDict[Path, OpenSet] = OrderedDict()
        self._writer = ThreadPoolExecutor(1, "lora-trainer-captions")
        self._writing: dict[Path, Future[list[str]]] = {}
        self._said: dict[Path, list[str]] = {}

    @contextmanager
    def use(self, folder: Path) -> Iterator[OpenSet]:
        """The set in `folder`, which stays open until the block ends, and mostly longer. Raises BadInput."""
        with self._lock:
            kept = self._opened(folder)
            kept.users += 1
        try:
            yield kept
        except Damaged:
            self.let_go(folder)
            raise
        finally:
            with self._lock:
                kept.users -= 1
                self._close_unused(kept)

    def let_go(self, folder: Path) -> None:
        """Closes the set, at once or after its last use: its folder is going to be moved."""
        with self._lock:
            if kept := self._kept.pop(folder, None):
                kept.unwanted = True
                self._close_unused(kept)

    def settle(self, folder: Path) -> list[str]:
        """Takes over what has changed in the folder and writes every changed caption to its file; returns sentences.

        By a connection of its own, so that nobody who looks at the set waits. Raises BadInput.
        """
        with Dataset.open(folder) as own:
            pass
        return [*self.said(folder), *own.notices]

    def said(self, folder: Path) -> list[str]:
        """What there is to say of the set since somebody last asked, in sentences."""
        with self._lock:
            return self._said.pop(folder, [])

    def write_soon(self, folder: Path) -> None:
        """Has changed captions written to their files, while the request that changed them is answered."""
        with self._lock:
            running = self._writing.get(folder)
            if running is None or running.done() or running.running():  # one that runs may have passed the change
                self._writing[folder] = self._writer.submit(self._write, folder)

    def wait_for(self, folders: Iterable[Path]) -> None:
        """Until the captions that `write_soon` was told of are in their files, which other processes read."""
        with self._lock:
            running = [self._writing[folder] for folder in folders if folder in self._writing]
        for future in running:
            future.result()

    def _write(self, folder: Path) -> list[str]:
        try:
            said = self.settle(folder)
        except BadInput as error:  # the changes stay in the index; the next look at the set says it again
            said = [str(problem) for problem in error.problems]
        with self._lock:
            self._said[folder] = said
        return said

    def _opened(self, folder: Path) -> OpenSet:
        kept = self._kept.get(folder)
        if kept and kept.place != _place(folder):  # put aside by another process, and another set in its place
            self.let_go(folder)
            kept = None
        if kept is None:
            dataset = Dataset.open(folder)
            self._said[folder] = [*self._said.get(folder, []), *dataset.notices]
            kept = self._kept[folder] = OpenSet(dataset, Thumbnails(folder), _place(folder))
            if len(self._kept) > MOST_OPEN:
                self.let_go(next(iter(self._kept)))
        self._kept.move_to_end(folder)
        return kept

    def _close_unused(self, kept: OpenSet) -> None:
        if kept.unwanted and not kept.users:
            kept.close()


def _place(folder: Path) -> tuple[int, int]:
    try:
        status = (folder / HOME / "index.sqlite").stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_dev, status.st_ino


SETS = Sets()  # for the whole process, as a host mounts the routes anew when it reloads its page

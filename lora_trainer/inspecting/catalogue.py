"""What the files of a models folder are, each read once for as long as it stays the same."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput
from lora_trainer.files import digest
from lora_trainer.inspecting.describe import describe

Facts = dict[str, Any]
Stamp = tuple[int, int]  # a file's size in bytes and its time in ns


class Catalogue:
    """Files are read by a thread of its own, one after the other, so that nobody waits for hundreds of them."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, Facts]] = {}
        self._hashes: dict[Path, tuple[Stamp, str]] = {}
        self._unread: deque[Path] = deque()
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()

    def look(self, files: Iterable[Path]) -> dict[Path, Facts | None]:
        """What is known of each file, as `facts_of` tells it; None for one that is still to be read, which is begun."""
        found = {file: self._fresh(file) if stamp_of(file) else facts_of(file) for file in files}
        self._ask_for([file for file, facts in found.items() if facts is None])
        return found

    def read(self, file: Path) -> Facts:
        """The same of one file, at once."""
        if (known := self._fresh(file)) is not None:
            return known
        stamp = stamp_of(file)
        facts = facts_of(file)
        if stamp:
            self._known[file] = stamp, facts
        return facts

    def known_hash(self, file: Path) -> str:
        """The file's SHA-256 if it has been asked for; "" otherwise."""
        stamp, found = self._hashes.get(file, (None, ""))
        return found if stamp is not None and stamp == stamp_of(file) else ""

    def hash(self, file: Path) -> str:
        """The file's SHA-256, which takes seconds for a large one. OSError where it can't be read."""
        if found := self.known_hash(file):
            return found
        stamp, found = stamp_of(file), digest(file)
        if stamp:
            self._hashes[file] = stamp, found
        return found

    def _fresh(self, file: Path) -> Facts | None:
        stamp, facts = self._known.get(file, (None, None))
        return facts if stamp is not None and stamp == stamp_of(file) else None

    def _ask_for(self, files: list[Path]) -> None:
        with self._lock:
            self._unread.extend(file for file in files if file not in self._unread)
            if self._unread and self._reader is None:
                self._reader = threading.Thread(target=self._read_all, name="lora-trainer-catalogue", daemon=True)
                self._reader.start()

    def _read_all(self) -> None:
        while True:
            with self._lock:
                if not self._unread:
                    self._reader = None
                    return
                file = self._unread.popleft()
            self.read(file)


def stamp_of(file: Path) -> Stamp | None:
    """None where there is no such file."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def facts_of(file: Path) -> Facts:
    """What `describe` tells; of what is no model, a `kind` of "" and the `problem`."""
    try:
        return describe(file)
    except BadInput as error:
        return {"kind": "", "problem": "; ".join(f"{each.problem}. {each.remedy}" for each in error.problems)}
    except OSError as error:
        return {"kind": "", "problem": f"can't be read ({error.strerror}). Check it, and the rights to it."}


CATALOGUE = Catalogue()  # for the whole process, as a host mounts the routes anew when it reloads its page

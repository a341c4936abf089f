"""SQLite databases on disks that may refuse, and damaged ones: told in the words of whoever uses them."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_THE_DISK = ("disk", "locked", "locking", "readonly", "unable to open", "permission", "memory")


@contextmanager
def told(unusable: Callable[[str], Exception], damaged: Callable[[], Exception]) -> Iterator[None]:
    """Raises what `unusable` makes of SQLite's reason where disk or rights are at fault, what `damaged` makes where
    the file is. Errors of a statement, such as a value that must be unique, stay as they are.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        # Any other reason is one that only a damaged file can give, as the statements themselves are right.
        known = any(word in str(error) for word in _OF_THE_DISK)
        raise (unusable(str(error)) if known else damaged()) from error
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # its other kinds are about statements, not about the file
            raise
        raise damaged() from error
    except UnicodeDecodeError as error:  # SQLite's message quotes what it cannot read
        raise damaged() from error


def put_aside(path: Path) -> str:
    """Renames a damaged database, so that an empty one takes its place; returns the name that it has from then on.

    Raises OSError where the disk refuses, as Windows does while another program has it open.
    """
    names = (f"{path.name}.damaged-{number}" for number in itertools.count(1))
    aside = next(name for name in names if not path.with_name(name).exists())
    for ending in ("-wal", "-shm", "-journal", ""):  # the journals first: they must not be taken for the empty one's
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(path.with_name(aside + ending))
    return aside

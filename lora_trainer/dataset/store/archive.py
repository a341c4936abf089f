"""The files of a zip, once it is seen to be harmless. Nothing is ever written under a name that a zip gives."""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.listing import is_hidden, natural, some
from lora_trainer.dataset.store.names import readable
from lora_trainer.dataset.store.sources import BLOCK, Member, cannot_be_read, is_caption, is_picture

MOST_ENTRIES = 100_000
MOST_BYTES, MOST_TIMES = 1 << 30, 100  # unpacked: the larger of a gibibyte and 100 times the zip's own size
_MOST_LISTING = 32 << 20  # bytes of the listing at a zip's end, which is read in one go

_ENCRYPTED, _UTF8 = 0x1, 0x800
# A zip of an older Windows does not say in which code page its names are. In the first of these that all of them fit:
# macOS writes UTF-8 without saying so; Japanese names hardly ever fit gb2312, whose letters begin above theirs; many
# Chinese ones would fit cp932.
_CODE_PAGES = ("utf-8", "gb2312", "cp932", "gb18030", "cp437")
_BROKEN = (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, ArithmeticError, struct.error)
_AGAIN = "Pack it again, or unpack it and name the folder."


def zip_members(path: Path, stack: ExitStack) -> list[Member]:
    """The zip's files in natural order, hidden ones and macOS's leftovers aside; it stays open as long as `stack`.

    Raises BadInput where the zip is damaged, has a password, leads out of its folder (`..`, absolute names, drive
    letters, symbolic links) or would unpack to more than MOST_BYTES or MOST_TIMES its size. zipfile hands out no more
    bytes than an entry declares, so that declared sizes are a limit for those that lie too.
    """
    archive = _opened(path, stack)
    entries = [entry for entry in _entries(archive) if not entry[1].is_dir()]
    _check(path, entries)
    visible = [(name, info) for name, info in entries if not any(map(is_hidden, name.parts))]
    visible.sort(key=lambda entry: [natural(PurePosixPath(part)) for part in entry[0].parts])
    return [_member(archive, path, name, info) for name, info in visible]


class _Listing(io.BufferedReader):
    """Refuses to be read in one go where that would fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_LISTING:
            raise zipfile.BadZipFile("its listing is too long")
        return super().read(size)


def _opened(path: Path, stack: ExitStack) -> zipfile.ZipFile:
    try:
        file = stack.enter_context(_Listing(io.FileIO(path)))
        return stack.enter_context(zipfile.ZipFile(file))
    except _BROKEN as error:
        raise _refused(path, f"is no zip that can be read ({error})", "Copy or download it again.") from error


def _entries(archive: zipfile.ZipFile) -> list[tuple[PurePosixPath, zipfile.ZipInfo]]:
    """Every entry with its name, read in the code page that fits."""
    infos = archive.infolist()
    raw = {info: info.orig_filename.encode("cp437") for info in infos if not info.flag_bits & _UTF8}
    page = next(page for page in _CODE_PAGES if _fits(page, raw.values()))
    names = (raw[info].decode(page) if info in raw else info.orig_filename for info in infos)
    return [(PurePosixPath(name.replace("\\", "/")), info) for name, info in zip(names, infos)]


def _fits(page: str, names: Iterable[bytes]) -> bool:
    try:
        for name in names:
            name.decode(page)
    except UnicodeDecodeError:
        return False
    return True


def _check(path: Path, entries: list[tuple[PurePosixPath, zipfile.ZipInfo]]) -> None:
    if len(entries) > MOST_ENTRIES:
        raise _refused(path, f"holds {len(entries):,} files, more than {MOST_ENTRIES:,}", "Import it in parts.")
    if outside := [readable(str(name)) for name, info in entries if _leads_out(name, info)]:
        raise _refused(path, f"has names or links that lead out of its folder ({some(outside)})", _AGAIN)
    if any(info.flag_bits & _ENCRYPTED for _, info in entries):
        raise _refused(path, "has a password", "Unpack it and name the folder.")
    unpacked = sum(info.file_size for name, info in entries if is_picture(name) or is_caption(name))
    most = max(MOST_BYTES, MOST_TIMES * path.stat().st_size)
    if unpacked > most:
        size = f"would unpack to {unpacked / 2**30:,.1f} GiB, more than {most / 2**30:,.1f}"
        raise _refused(path, size, "Unpack it and name the folder, if you trust it.")


def _leads_out(name: PurePosixPath, info: zipfile.ZipInfo) -> bool:
    outside = name.is_absolute() or ".." in name.parts or re.match("[A-Za-z]:", str(name))
    return bool(outside) or stat.S_ISLNK(info.external_attr >> 16)


def _member(archive: zipfile.ZipFile, path: Path, name: PurePosixPath, info: zipfile.ZipInfo) -> Member:
    shown = readable(f"{path.name}/{name}")
    return Member(shown, str(name), partial(_blocks, archive, info, shown))


def _blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> Iterator[bytes]:
    # The other methods' decoders unpack a block of any size at once.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInput(Problem(shown, None, f"is packed by a method ({info.compress_type}) not read here", _AGAIN))
    try:
        with archive.open(info) as file:
            while block := file.read(BLOCK):
                yield block
    except (*_BROKEN, zlib.error) as error:
        raise cannot_be_read(shown, error) from error


def _refused(path: Path, problem: str, remedy: str) -> BadInput:
    return BadInput(Problem("pictures", str(path), problem, remedy))

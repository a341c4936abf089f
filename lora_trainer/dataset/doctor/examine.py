"""The doctor's round: each picture is looked at once, each caption read, and what stands out is said."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.ahead import ahead
from lora_trainer.dataset.buckets import Buckets
from lora_trainer.dataset.captions import are_tags, read_caption
from lora_trainer.dataset.doctor import findings
from lora_trainer.dataset.doctor.blur import BLURRED
from lora_trainer.dataset.doctor.findings import KINDS, Finding
from lora_trainer.dataset.doctor.likeness import alike
from lora_trainer.dataset.doctor.looks import Look, Trained, look_at
from lora_trainer.dataset.listing import natural, stem
from lora_trainer.dataset.pictures import read_picture
from lora_trainer.dataset.store.scanning import scan

Count = Callable[[str], int]
_WORD = re.compile(r"\s*(?:[\u3000-\uffef]|[^\s\u3000-\uffef]+)")  # or one letter of those that stand without spaces


@dataclass(frozen=True)
class Checkup:
    """`findings` in the order of KINDS; `trained`: how each picture that can be read goes into training."""

    pictures: int
    findings: tuple[Finding, ...]
    trained: tuple[Trained, ...]


def examine(
    folder: Path,
    buckets: Buckets,
    *,
    count_tokens: Count | None = None,
    longest: int = 75,
    progress: Callable[[int, int], None] | None = None,
) -> Checkup:
    """The pictures in a folder's `10_name` folders, or in itself where there are none, with their captions.

    `count_tokens` gives a text's tokens without BOS and EOS, of which `longest` are trained; without it, nothing is
    said of caption lengths. `progress` is told (pictures looked at, all of them). Raises BadInput where the folder
    cannot be read.
    """
    found = scan(folder, ".txt")
    if not found.pictures:
        raise BadInput(Problem("dataset", str(folder), "has no pictures", "Name the folder they lie in."))
    places = sorted(found.pictures, key=lambda place: (natural(Path(place[0])), natural(Path(place[1]))))
    pictures = [folder / subfolder / file for subfolder, file in places]
    captions = {(name, key): folder / name / file for (name, key), (file, _) in found.captions.items()}
    results = list(_looks(pictures, buckets, progress))
    looks = [result for result in results if isinstance(result, Look)]
    made = [result for result in results if isinstance(result, Finding)]
    made += [findings.nameless(name) for name in found.nameless]
    made += [findings.too_small(look) for look in looks if look.trained.enlarged > findings.ENLARGED]
    made += [findings.blurred(look) for look in looks if look.blur is not None and look.blur > BLURRED]
    named = [(subfolder, stem(path)) for (subfolder, _), path in zip(places, pictures)]
    for key, path in zip(named, pictures):
        made += _about_caption(path, captions.get(key), count_tokens, longest)
    made += [findings.without_picture(captions[key]) for key in sorted(captions.keys() - set(named))]
    made += _same(looks, {file for finding in made for file in finding.files})
    order = list(KINDS)
    ordered = sorted(made, key=lambda finding: order.index(finding.kind))
    return Checkup(len(pictures), tuple(ordered), tuple(look.trained for look in looks))


def _looks(
    paths: Sequence[Path], buckets: Buckets, progress: Callable[[int, int], None] | None
) -> Iterator[Look | Finding]:
    def look(path: Path) -> Look | Finding:
        try:
            return look_at(path, buckets)
        except BadInput as error:
            return findings.unreadable(path, error)

    for done, result in enumerate(ahead(look, paths), start=1):
        if progress:
            progress(done, len(paths))
        yield result


def _same(looks: Sequence[Look], faulty: set[Path]) -> Iterator[Finding]:
    """Groups of the same pixels and of what is nearly the same; the largest without another finding comes first."""
    for group in alike(looks):
        best = sorted(group, key=lambda look: (look.path in faulty, -look.trained.size[0] * look.trained.size[1]))
        kept = []
        for copies in _by_pixels(best):
            kept.append(copies[0])
            if len(copies) > 1:
                yield findings.same("duplicate", copies)
        if len(kept) > 1:
            yield findings.same("near-duplicate", kept)


def _by_pixels(looks: Sequence[Look]) -> list[list[Look]]:
    """Those of one size are decoded once more, whole: a look is too small to tell the same from nearly the same."""
    sizes = Counter(look.trained.size for look in looks)
    groups: dict[object, list[Look]] = {}
    for look in looks:
        alone = sizes[look.trained.size] == 1
        pixels = look.path if alone else hashlib.sha256(read_picture(look.path).tobytes()).digest()
        groups.setdefault((look.trained.size, pixels), []).append(look)
    return list(groups.values())


def _about_caption(path: Path, caption: Path | None, count_tokens: Count | None, longest: int) -> Iterator[Finding]:
    if caption is None:
        yield findings.without_caption(path)
        return
    try:
        line = read_caption(caption)
    except BadInput as error:
        yield findings.unreadable(path, error)
        return
    if not line:
        yield findings.empty_caption(path, caption)
    # A token is a byte at least, so that a short caption need not be counted.
    elif count_tokens and len(line.encode()) > longest and (tokens := count_tokens(line)) > longest:
        yield findings.cut_off(path, tokens, longest, _lost(line, count_tokens, longest))


def _lost(line: str, count_tokens: Count, longest: int) -> str:
    """What of a caption is beyond the first `longest` tokens: from the first tag that is not whole; in a sentence, from
    the first word."""
    ends = [match.end() for match in _WORD.finditer(line)]
    whole = bisect_right(ends, longest, key=lambda end: count_tokens(line[:end]))
    kept = line[: ends[whole - 1]] if whole else ""
    if are_tags([line]) and not kept.endswith(","):
        kept = kept[: kept.rfind(",") + 1]
    return line[len(kept) :].strip()

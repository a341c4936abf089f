"""What to look at in a set's tags before training: what the trigger word could stand for, one-offs, contradictions.

A LoRA learns what is in the pictures as the meaning of the words beside them. What every caption names is learned as
that word; what none names folds into the trigger word, which then brings it without being asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.contradictions import contradictions
from lora_trainer.dataset.edits import tag_key

COMMON = 0.8  # of the pictures; a tag on more of them is asked about
FEWEST = 3  # pictures; in fewer, every tag is on most or on one
Id = TypeVar("Id")

_ALL_TAKE_IT = "every picture of the LoRA would have it"
# What is about this picture, not about who is in it, and what comes of folding it all the same.
_STAYING = (
    (
        "how many are in the picture",
        r"\d\+?(girl|boy|other)s?|multiple (girls|boys|others)|solo|no humans|(male|solo|animal|other) focus",
        "the base model draws by it, and others could not join",
    ),
    (
        "the background",
        r"(.+ )?background|(out|in)doors|day|night|sunset|(blue |night |cloudy )?sky|scenery|shadow|cherry blossoms",
        _ALL_TAKE_IT,
    ),
    (
        "the view",
        r"(full|upper|lower) body|portrait|close-up|profile|pov|dutch angle|(cowboy|very wide|wide) shot|multiple views"
        r"|(from|looking|facing) .+|straight-on|(feet|head) out of frame|blurry|depth of field|(foot|eye) focus",
        _ALL_TAKE_IT,
    ),
    (
        "the pose or the expression",
        r"standing( on .+)?|sitting|lying|kneeling|squatting|walking|running|jumping|waving|holding( .+)?"
        r"|(arms?|hands?|legs?) (up|down|apart|together|(at|on|in|to|under|over|behind|between|around) .+)|leaning .+"
        r"|outstretched arms?|spread arms|crossed (arms|legs)|head tilt|on (back|side|stomach)|v|(.+ )?smile|grin|frown"
        r"|(open|closed|wavy|covered|triangle|split|dot|no) mouth|parted lips|(upper )?teeth( only)?|tongue( out)?"
        r"|closed eyes|one eye closed|half-closed eyes|expressionless|tears|crying|angry|sad|surprised|embarrassed"
        r"|sweat(drop)?|blush",
        _ALL_TAKE_IT,
    ),
    (
        "how it is drawn",
        r"masterpiece|(best|high|good|normal|low|worst) quality|.+res|chibi|monochrome|greyscale|sketch|lineart|comic"
        r"|4koma|traditional media|.+ \(medium\)|realistic|3d|pixel art|flat color|official art|border|letterboxed",
        _ALL_TAKE_IT,
    ),
    (
        "writing on the picture",
        r"signature|watermark|web address|dated|speech bubble|.+ (text|name|username)|logo|copyright notice",
        _ALL_TAKE_IT,
    ),
)


@dataclass(frozen=True)
class TagCount:
    """A tag as most captions spell it, and how many captions have it."""

    tag: str
    count: int


@dataclass(frozen=True)
class Common(TagCount):
    """A tag on nearly all pictures, and why it should go, or stay."""

    why: str


@dataclass(frozen=True)
class Contradiction(Generic[Id]):
    picture: Id
    tags: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Advice(Generic[Id]):
    """`fold`: tags that could be left out; `kept`: as common, but better left in; `one_offs`: with their picture.

    `remaining`: the tags that are there once `fold` is left out; `bare`: pictures that then have none.
    """

    pictures: int
    fold: tuple[Common, ...]
    kept: tuple[Common, ...]
    one_offs: tuple[tuple[str, Id], ...]
    contradictions: tuple[Contradiction[Id], ...]
    remaining: tuple[TagCount, ...]
    bare: tuple[Id, ...]


def count_tags(lines: Iterable[str]) -> list[TagCount]:
    """The tags of all captions, the commonest first, then as they come; one that a caption has twice counts once."""
    counts: Counter[str] = Counter()
    spellings: Counter[str] = Counter()
    for line in lines:
        found = {tag_key(tag): tag for tag in tags(line)}
        counts.update(found.keys())
        spellings.update(found.values())
    spelled: dict[str, str] = {}
    for tag, _ in spellings.most_common():
        spelled.setdefault(tag_key(tag), tag)
    return [TagCount(spelled[key], count) for key, count in counts.most_common()]


def advise(lines: Mapping[Id, str], trigger: str = "") -> Advice[Id]:
    """Advice on the trained lines of a set's captions; `trigger` and its single words are never asked about."""
    counts = count_tags(lines.values())
    own = {tag_key(word) for tag in tags(trigger) for word in (tag, *tag.split())}
    others = [row for row in counts if tag_key(row.tag) not in own]
    asked = len(lines) >= FEWEST
    common = [row for row in others if asked and row.count > COMMON * len(lines)]
    fold = tuple(_to_fold(row, len(lines)) for row in common if not _staying(tag_key(row.tag)))
    kept = tuple(_to_keep(row) for row in common if _staying(tag_key(row.tag)))
    gone = {tag_key(row.tag) for row in fold}
    rare = {tag_key(row.tag) for row in others if asked and row.count == 1}
    left = {picture: {tag_key(tag) for tag in tags(line)} - gone - own for picture, line in lines.items()}
    return Advice(
        len(lines),
        fold,
        kept,
        tuple((tag, picture) for picture, line in lines.items() for tag in tags(line) if tag_key(tag) in rare),
        tuple(Contradiction(key, *wrong) for key, line in lines.items() for wrong in contradictions(tags(line))),
        tuple(row for row in counts if tag_key(row.tag) not in gone),
        tuple(picture for picture, keys in left.items() if not keys),
    )


def _to_fold(row: TagCount, pictures: int) -> Common:
    where = "on every picture" if row.count == pictures else f"on {row.count} of {pictures} pictures"
    why = f"{where}: left in, it is learned as this word; left out, it becomes part of the trigger word."
    return Common(row.tag, row.count, why)


def _to_keep(row: TagCount) -> Common:
    what, otherwise = _staying(tag_key(row.tag)) or ("", "")
    return Common(row.tag, row.count, f"about {what}, not about the subject: left out, {otherwise}.")


@lru_cache(maxsize=1 << 16)
def _staying(key: str) -> tuple[str, str] | None:
    """What a tag is about that no trigger word should stand for, and why; None where it may be folded."""
    for what, pattern, otherwise in _STAYING:
        if re.fullmatch(pattern, key):
            return what, otherwise
    if key.isascii() and not re.search(r"[a-z]{2}", key):  # :d, ^_^ and their like
        return "the pose or the expression", _ALL_TAKE_IT
    return None

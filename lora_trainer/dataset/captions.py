"""Captions: read from their files, varied from step to step, weighted. No file is written here."""

from __future__ import annotations

import codecs
import random
import re
from collections.abc import Sequence
from pathlib import Path

from lora_trainer.dataset.listing import unreadable

# UTF-32 before UTF-16, whose mark is the beginning of the other's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LONGEST_CAPTION = 1 << 16  # bytes of its file; the longest that a text encoder sees has some 1,500
_STRONGER, _WEAKER = 1.1, 1 / 1.1
_ATTENTION = re.compile(
    r"""\\(?P<escaped>[()\[\]\\]?)
    | :\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)
    | (?P<bracket>[()\[\]])""",
    re.VERBOSE,
)


def read_caption(path: Path) -> str:
    """The line of a caption file that is trained: `trained_line` of its `caption_text`. Raises BadInput."""
    return trained_line(caption_text(path))


def caption_text(path: Path) -> str:
    """A caption file's whole text, its line ends as they are and without a byte-order mark.

    UTF-8 with or without a byte-order mark, and UTF-16 or UTF-32 with one. Any other bytes raise BadInput: cp932 and
    gb18030 cannot be told apart, and a caption guessed wrong would train wrong words in silence. So does a file of more
    than LONGEST_CAPTION bytes, which is not read to its end.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_CAPTION + 1)
    except OSError as error:
        raise unreadable(path, f"cannot be read ({error.strerror})", "Check the file and the rights to it.") from error
    if len(data) > LONGEST_CAPTION:
        problem = f"is larger than {LONGEST_CAPTION // 1024} KiB, which is no caption"
        raise unreadable(path, problem, "Shorten it to what the picture shows, or remove it.")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise unreadable(path, "is not text in UTF-8", "Save it in an editor with the encoding UTF-8.")
    return text


def trained_line(text: str) -> str:
    """The first line that is not blank, stripped; "" where there is none. sd-scripts takes the first, blank or not."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def with_trained_line(text: str, line: str) -> str:
    """The text with the line that is trained changed to `line`, and every other line as it was.

    An empty `line` leaves the next one that is not blank as the one that is trained.
    """
    lines = text.splitlines(keepends=True)
    place = next((number for number, old in enumerate(lines) if old.strip()), None)
    if place is None:
        return line + text
    content = lines[place].splitlines()[0]
    lines[place] = line + lines[place][len(content) :]
    return "".join(lines)


def tags(caption: str) -> list[str]:
    """The comma-separated pieces, stripped, without empty ones."""
    return [*filter(None, map(str.strip, caption.split(",")))]


def are_tags(captions: Sequence[str]) -> bool:
    """Whether most captions are lists of tags (three or more, of at most three words on average), not sentences."""
    listed = sum(_is_tag_list(tags(caption)) for caption in captions)
    return listed * 2 > len(captions)


def _is_tag_list(pieces: list[str]) -> bool:
    words = sum(len(piece.split()) for piece in pieces)
    return len(pieces) >= 3 and words <= 3 * len(pieces) and not pieces[-1].endswith(".")


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word's tags first, and not a second time further on."""
    first, pieces = tags(trigger), tags(caption)
    known = {tag.casefold() for tag in first}
    rest = [tag for tag in pieces if tag.casefold() not in known]
    begins_with_it = re.match(re.escape(trigger.strip()) + r"(?!\w)", caption, re.IGNORECASE)
    if not first or (begins_with_it and rest == pieces):
        return caption  # a sentence about it
    return ", ".join(first + rest)


def vary(
    caption: str,
    *,
    shuffle: bool,
    keep_tokens: int,
    tag_dropout: float,
    caption_dropout: float,
    prefix: str,
    suffix: str,
    rng: random.Random,
) -> str:
    """One step's wording of a caption; in sd-scripts' order: prefix and suffix, dropout, shuffle, tag dropout.

    Prefix and suffix are joined with a space. The first `keep_tokens` tags, counted with the prefix, are neither moved
    nor dropped. Dropouts are chances from 0 to 1. Where nothing is shuffled or dropped, the caption's spacing stays.
    """
    caption = " ".join(part for part in (prefix, caption, suffix) if part)
    if caption_dropout > 0 and rng.random() < caption_dropout:
        return ""
    if not shuffle and tag_dropout <= 0:
        return caption
    pieces = tags(caption)
    kept, loose = pieces[:keep_tokens], pieces[keep_tokens:]
    if shuffle:
        rng.shuffle(loose)
    if tag_dropout > 0:
        loose = [tag for tag in loose if rng.random() >= tag_dropout]
    return ", ".join(kept + loose)


def caption_dropout_at(rate: float, every_n_epochs: int, epoch: int) -> float:
    """The chance in this epoch (counted from 1): every `every_n_epochs`-th trains without captions; 0 means never."""
    return 1.0 if every_n_epochs > 0 and epoch % every_n_epochs == 0 else rate


def parse_weights(text: str) -> list[tuple[str, float]]:
    """The WebUI's attention syntax as runs of text with one weight each: `(a)` 1.1, `(a:1.2)` 1.2, `[a]` 1 / 1.1.

    Brackets nest and multiply; a backslash before a bracket or backslash makes it a letter, and vanishes before
    anything else. A bracket left open counts to the end of the text, one that closes nothing is a letter. [("", 1.0)]
    for an empty text.
    """
    runs: list[tuple[str, float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(bracket: str, weight: float) -> None:
        start = opened[bracket].pop()
        runs[start:] = [(words, factor * weight) for words, factor in runs[start:]]

    def add(words: str) -> None:
        if words:
            runs.append((words, 1.0))

    end = 0
    for match in _ATTENTION.finditer(text):
        add(text[end : match.start()])
        end = match.end()
        bracket = match["bracket"]
        if match["escaped"] is not None:
            add(match["escaped"])
        elif match["weight"] and opened["("]:
            close("(", float(match["weight"]))
        elif bracket in opened:
            opened[bracket].append(len(runs))
        elif bracket == ")" and opened["("]:
            close("(", _STRONGER)
        elif bracket == "]" and opened["["]:
            close("[", _WEAKER)
        else:
            add(match[0])
    add(text[end:])
    for bracket, weight in (("(", _STRONGER), ("[", _WEAKER)):
        while opened[bracket]:
            close(bracket, weight)
    return _merged(runs)


def _merged(runs: list[tuple[str, float]]) -> list[tuple[str, float]]:
    merged: list[tuple[str, float]] = [("", 1.0)] if not runs else []
    for words, weight in runs:
        if merged and merged[-1][1] == weight:
            words = merged.pop()[0] + words
        merged.append((words, weight))
    return merged

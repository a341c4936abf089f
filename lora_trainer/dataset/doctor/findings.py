"""What the doctor may find, each said in one sentence, with what to do about it in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.config import BadInput
from lora_trainer.config.problems import shown
from lora_trainer.dataset.listing import some

if TYPE_CHECKING:
    from lora_trainer.dataset.doctor.looks import Look

ENLARGED = 1.01  # times; less is a side that was rounded

# Kinds of findings, with what to do; "" where each says its own.
KINDS = {
    "unreadable": "",
    "too-small": "Use a larger picture, or train at a lower resolution.",
    "blurred": "Look at it: what is blurred in the pictures is learned as blurred.",
    "duplicate": "It is learned as often as it is there: keep one, and raise its folder's repeats where that is meant.",
    "near-duplicate": "Look at them: what they share is learned more strongly; keep the best.",
    "no-caption": "Tag it, or write a caption: without one, it is trained with the name in its folder's, or with none.",
    "empty-caption": "Tag it, or write a caption: with none, it teaches what a picture without a prompt looks like.",
    "cut-off": "Shorten the caption, or raise max_token_length to 150 or 225, for Flux t5_length to 512.",
    "no-picture": "Put its picture beside it, or delete it; nothing is trained from it.",
}


@dataclass(frozen=True)
class Finding:
    """One thing about one picture (a caption file, for "no-picture") or about a group of them, the best one first."""

    kind: str
    files: tuple[Path, ...]
    sentence: str
    remedy: str

    @property
    def leave_out(self) -> tuple[Path, ...]:
        """The pictures without which this would be no more."""
        if self.kind == "no-picture":
            return ()
        return self.files[1:] if self.kind in ("duplicate", "near-duplicate") else self.files


def unreadable(path: Path, error: BadInput) -> Finding:
    """`path` is the picture, also where its caption is what cannot be read, or where it fits into no bucket."""
    first = error.problems[0]
    what = first.value if first.setting == "subsets" else _name(path)
    return Finding("unreadable", (path,), f"{what}: {first.problem}.", first.remedy)


def nameless(name: str) -> Finding:
    """A file whose name the system cannot give as text, so that no path can be made of it either."""
    return Finding("unreadable", (), f"{name}: its name is no text.", "Rename it.")


def too_small(look: Look) -> Finding:
    (width, height), (to_width, to_height) = look.trained.size, look.trained.bucket
    how = f"{look.trained.enlarged:.2f} times to be trained at {to_width} x {to_height}"
    return _about("too-small", look.path, f"{width} x {height} pixels would be enlarged {how}")


def blurred(look: Look) -> Finding:
    how = f"its sharpest edges are blurred by {look.blur:.1f} pixels at the size at which it is trained"
    return _about("blurred", look.path, how)


def same(kind: str, looks: Sequence[Look]) -> Finding:
    """A group of duplicates or near-duplicates, the first of them the one to keep."""
    names = [_name(look.path) for look in looks]
    named = some(names, most=len(names) if len(names) < 5 else 3)
    alike = kind == "near-duplicate"
    sentence = f"{named} are nearly the same picture." if alike else f"{named} have the same pixels."
    return Finding(kind, tuple(look.path for look in looks), sentence, KINDS[kind])


def without_caption(path: Path) -> Finding:
    return _about("no-caption", path, "has no caption file")


def empty_caption(path: Path, caption: Path) -> Finding:
    return _about("empty-caption", path, f"its caption {caption.name} is empty")


def without_picture(caption: Path) -> Finding:
    return _about("no-picture", caption, "is a caption without a picture")


def cut_off(path: Path, tokens: int, longest: int, lost: str) -> Finding:
    return _about("cut-off", path, f"its caption has {tokens} tokens, {longest} are trained; lost is {shown(lost)}")


def _about(kind: str, path: Path, what: str) -> Finding:
    return Finding(kind, (path,), f"{_name(path)}: {what}.", KINDS[kind])


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"

"""What a training has made, moment by moment: previews of the same prompts and seed, and the LoRAs beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_trainer.jobs.event_log import Event, find_events
from lora_trainer.jobs.folder import JobFolder

MOST_PROMPTS = 1000


@dataclass(frozen=True)
class Moment:
    """After `step` steps, in `epoch` (0: before training). `previews`: file names by the prompt's number from 0."""

    step: int
    epoch: int
    previews: dict[int, str] = field(default_factory=dict)
    loras: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class History:
    """`moments`, the earliest first, hold only what is still there; `prompts` are those of the newest previews."""

    prompts: list[str]
    moments: list[Moment]

    @property
    def baseline(self) -> Moment | None:
        """The previews from before training."""
        return next((moment for moment in self.moments if moment.step == 0 and moment.previews), None)

    def previews_of(self, lora: str) -> list[str]:
        """The previews that show best what a LoRA of this file name does, the first prompt's first.

        They are its own moment's, or else its epoch's or the last one's before; never the baseline.
        """
        made = next((moment for moment in self.moments if lora in moment.loras), None)
        if made is None:
            return []
        drawn = [each for each in self.moments if each.step and each.epoch <= made.epoch and 0 in each.previews]
        best = min(drawn, key=lambda each: (each.step != made.step, -each.step), default=None)
        return [best.previews[number] for number in sorted(best.previews)] if best else []


def history(folder: JobFolder) -> History:
    """That of a job, from what its workers told. A missing folder has none. Raises OSError."""
    moments: dict[int, Moment] = {}
    prompts: dict[int, str] = {}
    there = {path.name for place in (folder.samples, folder.models) if place.is_dir() for path in place.iterdir()}
    for event in _newest(folder.events):
        facts, name = event.facts, Path(str(event.facts["path"])).name
        if name not in there:
            continue
        moment = moments.setdefault(facts["step"], Moment(facts["step"], facts["epoch"]))
        if event.kind == "saved":
            moment.loras.append(name)
        elif 0 <= (number := facts["number"]) < MOST_PROMPTS:
            moment.previews[number] = name
            prompts[number] = str(facts.get("prompt", ""))
    count = max(prompts, default=-1) + 1
    return History([prompts.get(number, "") for number in range(count)], sorted(moments.values(), key=_step))


def _newest(events: Path) -> list[Event]:
    """What was told last of each file: a job that began anew has made some of them twice."""
    found: dict[str, Event] = {}
    for event in find_events(events, ("sample", "saved")):
        if _is_whole(event.kind, event.facts):
            found.pop(event.facts["path"], None)
            found[event.facts["path"]] = event
    return list(found.values())


def _is_whole(kind: str, facts: Mapping[str, Any]) -> bool:
    numbers = ("step", "epoch", "number") if kind == "sample" else ("step", "epoch")
    return isinstance(facts.get("path"), str) and all(type(facts.get(name)) is int for name in numbers)


def _step(moment: Moment) -> int:
    return moment.step

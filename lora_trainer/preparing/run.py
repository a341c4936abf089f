"""Pictures made ready to train on: brought into a dataset, cut, tagged. What is done already is left as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from lora_trainer.config import Config, Problem
from lora_trainer.dataset.captions import with_trained_line
from lora_trainer.dataset.edits import edited, put_first, remove
from lora_trainer.dataset.recipe import recipe_of
from lora_trainer.dataset.store import Dataset, Entry
from lora_trainer.dataset.store.importing import folder_for, import_pictures
from lora_trainer.jobs.events import Report, silent
from lora_trainer.jobs.stops import Stop
from lora_trainer.preparing.cutting import cut_all, sheet_of_cuts, uncut_all
from lora_trainer.tagging.captioning import Tagger, caption_all, load_tagger
from lora_trainer.tagging.wording import TagOptions, merged

SAVED_TOGETHER = 16  # captions: a kill costs no more of the tagger's work


@dataclass
class Prepared:
    """What was done. `around` counts the pictures cut by what they were cut around: face, subject, centre; nothing."""

    folder: Path
    pictures: int = 0
    added: int = 0
    already: int = 0
    around: dict[str, int] = field(default_factory=dict)
    enlarged: list[str] = field(default_factory=list)
    tagged: int = 0
    edited: dict[str, int] = field(default_factory=dict)
    left_out: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    stopped: bool = False

    def facts(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {**asdict(self), "folder": str(self.folder), "left_out": [str(problem) for problem in self.left_out]}


def prepare(
    config: Config,
    sources: Sequence[Path],
    folder: Path,
    models: Path,
    unwanted: Sequence[str] = (),
    uncut: bool = False,
    report: Report = silent,
    stop: Stop | None = None,
) -> Prepared:
    """Imports `sources` into the dataset `folder`, then cuts, tags and edits all of it as the config says.

    `models` holds the taggers' files; `unwanted` tags are taken out of all captions. A stop takes effect between two
    pictures, and the next run goes on from there. Raises BadInput before anything is changed where the tagger cannot be
    had or no picture can be used.

    Where nothing is to be cut, pictures that were cut stay so, unless `uncut` asks for the whole ones.
    """
    stop = stop or Stop()
    tagger = load_tagger(config.tagger, _options(config), models, report) if config.tagger != "none" else None
    done = _imported(config, sources, folder, report, stop)
    if done.stopped:
        return done
    with _opened(config, done) as dataset:
        _cut(dataset, config, uncut, done, report, stop)
        if tagger and not stop.wanted:
            _tag(dataset, tagger, config, done, report, stop)
        if not stop.wanted:
            done.edited = _edit(dataset, config, unwanted)
        done.notices += dataset.flush()
    done.stopped = stop.wanted
    return done


def preview(
    config: Config, sources: Sequence[Path], folder: Path, report: Report = silent, stop: Stop | None = None
) -> tuple[Prepared, Image.Image | None]:
    """Imports as `prepare` does, and draws where the pictures would be cut (`sheet_of_cuts`), unless stopped before."""
    done = _imported(config, sources, folder, report, stop or Stop())
    if done.stopped:
        return done, None
    with _opened(config, done) as dataset:
        return done, sheet_of_cuts(dataset, recipe_of(config))


@contextmanager
def _opened(config: Config, done: Prepared) -> Iterator[Dataset]:
    with Dataset.open(done.folder, config.caption_extension) as dataset:
        done.notices += dataset.notices
        done.pictures = len(dataset.entries())
        yield dataset


def _options(config: Config) -> TagOptions:
    return TagOptions(
        config.tag_threshold,
        config.character_threshold,
        config.tag_underscores,
        config.excluded_tags,
        escaped=config.weighted_captions,
    )


def _imported(config: Config, sources: Sequence[Path], folder: Path, report: Report, stop: Stop) -> Prepared:
    done = Prepared(folder, stopped=stop.wanted)
    if not sources:
        return done
    folder_name, asked = folder_for(folder, config.repeats, config.trigger_word)
    imported = import_pictures(
        folder,
        sources,
        folder_name=folder_name,
        background=config.background,
        caption_extension=config.caption_extension,
        report=report,
        stop=stop,
    )
    done.stopped = stop.wanted
    done.added, done.already = imported.added, imported.already
    done.left_out += imported.left_out
    done.notices += imported.notices
    if done.added and folder_name != asked:
        done.notices.append(f"Pictures join those in {folder_name}: rename that folder where it should be {asked}.")
    return done


def _cut(dataset: Dataset, config: Config, uncut: bool, done: Prepared, report: Report, stop: Stop) -> None:
    if config.crop != "none":
        cuts = cut_all(dataset, recipe_of(config), report, stop)
    elif uncut:
        cuts = uncut_all(dataset, config.background, report, stop)
    else:
        return
    done.around, done.enlarged = dict(cuts.around), cuts.enlarged
    done.left_out += cuts.left_out


def _tag(dataset: Dataset, tagger: Tagger, config: Config, done: Prepared, report: Report, stop: Stop) -> None:
    """Captions pictures that have no caption, or all where those are not kept: one step to undo, saved as it grows."""
    entries = {entry.id: entry for entry in dataset.entries() if not _is_kept(entry, config)}
    found = caption_all(tagger, ((number, dataset.picture(entry)) for number, entry in entries.items()), stop)
    step = seen = 0
    while batch := list(islice(found, SAVED_TOGETHER)):
        captions = {number: caption for number, caption in batch if isinstance(caption, str)}
        texts = {number: _with_tags(entries[number], caption, config) for number, caption in captions.items()}
        step = dataset.change_captions(f"tagged with {config.tagger}", texts, step)
        done.left_out += [problem for _, problem in batch if isinstance(problem, Problem)]
        done.tagged += len(captions)
        seen += len(batch)
        report("phase", name="tagging", done=seen, of=len(entries))


def _is_kept(entry: Entry, config: Config) -> bool:
    return config.existing_captions == "keep" and entry.line not in ("", config.trigger_word)


def _with_tags(entry: Entry, caption: str, config: Config) -> str:
    line = merged(entry.line, caption, "replace" if entry.line == config.trigger_word else config.existing_captions)
    return with_trained_line(entry.caption, line)


def _edit(dataset: Dataset, config: Config, unwanted: Sequence[str]) -> dict[str, int]:
    """The trigger word in front of every caption, then the unwanted tags out of them; a step each."""
    edits = {}
    if config.trigger_word:
        edits[f"trigger word {config.trigger_word}"] = put_first(config.trigger_word)
    if unwanted:
        edits[f"removed {', '.join(unwanted)}"] = remove(unwanted)
    counts = {}
    for what, edit in edits.items():
        changed = edited(dataset.captions(), edit)
        dataset.change_captions(what, changed)
        counts[what] = len(changed)
    return counts

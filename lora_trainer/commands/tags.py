"""Count a dataset's tags, edit them in all captions or in some, take an edit back, and say what to look at."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.commands.datasets import add_dataset, dataset_folder, separated, table
from lora_trainer.commands.progress import Phases
from lora_trainer.config import BadInput, Problem
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.dataset import edits
from lora_trainer.dataset.advisor import Advice, advise, count_tags
from lora_trainer.dataset.edits import Edit
from lora_trainer.dataset.listing import some
from lora_trainer.packages import activate

if TYPE_CHECKING:
    from lora_trainer.dataset.store import Dataset, Entry, Step

SHOWN = 20  # rows of each kind of advice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument("--remove", metavar="TAG,TAG", help="take tags out")
    parser.add_argument("--replace", nargs=2, metavar=("OLD", "NEW"), help="put a tag, or several, in another's place")
    parser.add_argument("--add", metavar="TAG,TAG", help="add tags where they are missing")
    parser.add_argument("--at", choices=("start", "end"), default="end", help="where --add puts them (end)")
    parser.add_argument("--dedupe", action="store_true", help="keep the first of tags that are the same")
    parser.add_argument("--sort", action="store_true", help="sort tags by the alphabet, behind the trigger word")
    parser.add_argument("--trigger", metavar="WORD", help="put the trigger word first, once")
    parser.add_argument("--picture", nargs="+", metavar="FILE", help="only in these pictures' captions")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--undo", action="store_true", help="take the last edit back")
    instead.add_argument("--redo", action="store_true", help="do again what was taken back")
    instead.add_argument("--history", action="store_true", help="list the edits")
    instead.add_argument("--advice", action="store_true", help="tags to fold into the trigger word, contradictions ...")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    activate()
    wanted = _edits(arguments)
    others = [name for name in _ACTIONS if getattr(arguments, name)]
    _check(others, "edits" if wanted else "--picture" if arguments.picture and others != ["advice"] else "")
    from lora_trainer.dataset.store import Dataset

    with Dataset.open(dataset_folder(arguments)) as dataset:
        entries = _chosen(dataset.entries(), arguments.picture)
        action = _ACTIONS[others[0]] if others else _edit if wanted else _count
        facts, lines = action(dataset, entries, arguments)
        notices = [*dataset.notices, *_flush(dataset, arguments)]
    if arguments.json:
        print(json.dumps({**facts, "notices": notices}, ensure_ascii=False))
        return 0
    print("\n".join([*lines, *(f"note: {notice}" for notice in notices)]))
    return 0


def _check(others: Sequence[str], beside: str) -> None:
    if others and beside:
        problem = f"cannot be done together with {beside}"
        raise BadInput(Problem("tags", f"--{others[0]}", problem, "Do one after the other."))


Answer = tuple[dict[str, Any], list[str]]  # for --json, and for people


def _count(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    counts = count_tags(entry.line for entry in entries)
    rows = [(row.count, row.tag) for row in counts]
    lines = [f"{len(counts)} tags in {len(entries)} captions", *table(rows, right=[0])]
    return {"pictures": len(entries), "tags": [asdict(row) for row in counts]}, lines


def _edit(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    wanted = _edits(arguments, _trigger(entries))
    what = "; ".join(wanted)
    changed = edits.edited({entry.id: entry.caption for entry in entries}, *wanted.values())
    step = dataset.change_captions(what, changed)
    line = f"{len(changed)} of {len(entries)} captions changed ({what})."
    back = f' `tags "{arguments.name}" --undo` takes it back.' if changed else ""
    return {"what": what, "changed": len(changed), "pictures": len(entries), "step": step}, [line + back]


def _undo(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    return _moved("undone", "taken back", dataset.undo())


def _redo(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    return _moved("redone", "done again", dataset.redo())


def _moved(key: str, words: str, step: Step | None) -> Answer:
    if step is None:
        return {key: None}, [f"There is nothing to be {words}."]
    lines = [f"{step.what}: {words} in {step.count} captions."]
    lines += [f"note: {name} was changed since and stays as it is." for name in step.left]
    return {key: asdict(step)}, lines


def _history(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    steps = dataset.history()
    rows = [(_time(step), step.count, step.what, "(taken back)" if step.undone else "") for step in steps]
    return {"history": [asdict(step) for step in steps]}, table(rows, right=[1]) or ["No caption was edited yet."]


def _advice(dataset: Dataset, entries: Sequence[Entry], arguments: argparse.Namespace) -> Answer:
    trigger = arguments.trigger or _trigger(entries)
    advice = advise({_place(entry): entry.line for entry in entries}, trigger)
    return {"trigger": trigger, **asdict(advice)}, list(_advice_lines(advice, trigger, arguments.name))


_ACTIONS = {"undo": _undo, "redo": _redo, "history": _history, "advice": _advice}


def _advice_lines(advice: Advice[str], trigger: str, name: str) -> Iterator[str]:
    word = f'"{trigger}"' if trigger else "the trigger word"
    if advice.fold:
        yield f"Fold into {word}?"
        yield from table((f"  {row.tag}", row.why) for row in advice.fold)
        gone = ",".join(row.tag for row in advice.fold)
        yield f'  To do so: tags "{name}" --remove "{gone}"'
    if advice.kept:
        yield "On most pictures, but better left in:"
        yield from table((f"  {row.tag}", row.why) for row in advice.kept)
    if advice.contradictions:
        yield "Contradictions:"
        yield from table((f"  {row.picture}", row.why) for row in advice.contradictions)
    if advice.one_offs:
        yield "On one picture only (a slip of the tagger, or a detail that need not be learned?):"
        yield from table((f"  {tag}", picture) for tag, picture in advice.one_offs[:SHOWN])
        yield from _more(advice.one_offs)
    yield "What remains:"
    yield from table(((f"  {row.count}", row.tag) for row in advice.remaining[:SHOWN]), right=[0])
    yield from _more(advice.remaining)
    if advice.bare:
        yield f"Captions with no tag of their own then: {some(advice.bare)}"


def _more(rows: Sequence[object]) -> Iterator[str]:
    if len(rows) > SHOWN:
        yield f"  ... and {len(rows) - SHOWN} more; --json names them all"


def _edits(arguments: argparse.Namespace, trigger: str = "") -> dict[str, Edit]:
    """The edits asked for, in the order in which they are done, by what each does."""
    wanted: dict[str, Edit] = {}
    if arguments.remove is not None:
        wanted[f"removed {arguments.remove}"] = edits.remove(separated(arguments.remove))
    if arguments.replace is not None:
        wanted["replaced {} by {}".format(*arguments.replace)] = edits.replace(*arguments.replace)
    if arguments.add is not None:
        wanted[f"added {arguments.add} at the {arguments.at}"] = edits.add(separated(arguments.add), arguments.at)
    if arguments.dedupe:
        wanted["removed duplicates"] = edits.dedupe()
    if arguments.sort:
        wanted["sorted"] = edits.sort(separated(arguments.trigger or trigger))
    if arguments.trigger is not None and not arguments.advice:
        wanted[f"{arguments.trigger} first"] = edits.put_first(arguments.trigger)
    return wanted


def _trigger(entries: Sequence[Entry]) -> str:
    """The trigger word, as the pictures' folder is named after it: `10_zdm`."""
    return next((word for entry in entries if (word := repeats_and_class(entry.folder)[1])), "")


def _chosen(entries: Sequence[Entry], names: Sequence[str] | None) -> list[Entry]:
    """The entries whose picture was named: by its path, its file's name or that without its ending; or all."""
    if names is None:
        return list(entries)
    chosen: dict[int, Entry] = {}
    missing = []
    for name in names:
        named = [entry for entry in entries if _is_named(entry, name)]
        missing += [] if named else [Problem("picture", name, "is not in the dataset", "Check its name.")]
        chosen.update((entry.id, entry) for entry in named)
    if missing:
        raise BadInput(missing)
    return list(chosen.values())


def _is_named(entry: Entry, name: str) -> bool:
    return name in (entry.file, Path(entry.file).stem) or f"/{Path(name).as_posix()}".endswith(f"/{_place(entry)}")


def _place(entry: Entry) -> str:
    return Path(entry.folder, entry.file).as_posix()


def _time(step: Step) -> str:
    return datetime.fromtimestamp(step.at).strftime("%Y-%m-%d %H:%M")


def _flush(dataset: Dataset, arguments: argparse.Namespace) -> list[str]:
    """Writes the caption files; says which ones a person had changed meanwhile."""
    show = Phases()
    try:
        return dataset.flush(
            None if arguments.json else lambda done, of: show("phase", name="writing", done=done, of=of)
        )
    finally:
        show.close()

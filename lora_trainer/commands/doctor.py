"""Look for pictures and captions that a training would suffer from, and show how each picture will be cut."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_trainer.commands.datasets import add_dataset, dataset_folder, table
from lora_trainer.commands.progress import Phases
from lora_trainer.config import FAMILIES, BadInput, Config, Problem, problems, with_values
from lora_trainer.dataset.buckets import Size, buckets_for
from lora_trainer.dataset.doctor.findings import ENLARGED, KINDS, Finding
from lora_trainer.packages import activate

if TYPE_CHECKING:
    from lora_trainer.dataset.doctor.examine import Checkup
    from lora_trainer.dataset.doctor.looks import Trained

SHOWN = 10  # findings of a kind
T5_LENGTH = 512  # tokens, of FLUX.1 dev


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument("--resolution", metavar="WxH", help="what will be trained at (512x512, or the family's own)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other settings, such as family=sdxl, max_token_length=150",
    )
    kinds = [kind for kind in KINDS if kind != "no-picture"]
    parser.add_argument(
        "--leave-out",
        nargs="+",
        choices=kinds,
        default=[],
        metavar="KIND",
        help=f"move the pictures with such findings to left_out, of duplicates all but one: {', '.join(kinds)}",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--progress", action="store_true", help='with --json: before it, print {"done": 1, "of": 9} for each picture'
    )


def run(arguments: argparse.Namespace) -> int:
    activate()
    config, folder = _config(arguments), dataset_folder(arguments)
    from lora_trainer.dataset.doctor.examine import examine

    count_tokens, notices = _counter(config)
    show = Phases()

    def progress(done: int, of: int) -> None:
        if not arguments.json:
            show("phase", name="looking", done=done, of=of)
        elif arguments.progress:
            print(json.dumps({"done": done, "of": of}), flush=True)

    try:
        checkup = examine(
            folder,
            buckets_for(config),
            count_tokens=count_tokens,
            longest=_longest(config),
            progress=progress,
        )
    finally:
        show.close()
    left_out = {file for found in checkup.findings if found.kind in arguments.leave_out for file in found.leave_out}
    if left_out:
        notices += _leave_out(folder, left_out)
    if arguments.json:
        print(json.dumps(_facts(checkup, sorted(left_out), notices), ensure_ascii=False))
        return 0
    print("\n".join([*_lines(checkup, config, arguments.name), *(f"note: {notice}" for notice in notices)]))
    if left_out:
        print(f"{len(left_out)} pictures left out: they lie in {folder / 'left_out'}.")
    return 0


def _config(arguments: argparse.Namespace) -> Config:
    """The settings that decide how pictures are cut and captions cut off. BadInput with all that is wrong."""
    changes = [f"resolution={arguments.resolution}"] if arguments.resolution else []
    config = with_values(Config(), [*arguments.set, *changes])
    given = {change.partition("=")[0].strip() for change in (*arguments.set, *changes)}
    if wrong := [problem for problem in problems(config) if problem.setting in given]:
        raise BadInput(wrong)
    return config.for_family(config.family if config.family in FAMILIES else "sd15")


def _longest(config: Config) -> int:
    """Tokens of a caption that are trained, besides those that mark its ends."""
    return (config.t5_length or T5_LENGTH) - 1 if config.family == "flux" else config.max_token_length


def _counter(config: Config) -> tuple[Callable[[str], int] | None, list[str]]:
    """The tokens of a text as training counts them; where they cannot be counted, why."""
    try:
        return _t5_counter(config.t5_tokenizer) if config.family == "flux" else _clip_counter(), []
    except (BadInput, ImportError, OSError) as error:
        return None, [f"the lengths of captions were not looked at: {error}"]


def _clip_counter() -> Callable[[str], int]:
    from lora_trainer.training.families.tokenizer import clip_tokenizer

    tokenizer = clip_tokenizer()
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _t5_counter(file: str | None) -> Callable[[str], int]:
    from lora_trainer.training.families.flux.tokenizer import read_tokenizer

    if not file:
        raise BadInput(Problem("t5_tokenizer", None, "is not known", "Name T5's tokenizer.json."))
    tokenizer = read_tokenizer(Path(file)).tokenizer
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _leave_out(folder: Path, files: set[Path]) -> list[str]:
    from lora_trainer.dataset.store import Dataset

    with Dataset.open(folder) as dataset:
        ids = [entry.id for entry in dataset.entries() if dataset.picture(entry) in files]
        return [*dataset.notices, *dataset.remove(ids)]


def _facts(checkup: Checkup, left_out: Sequence[Path], notices: Sequence[str]) -> dict[str, Any]:
    findings = [
        {
            "kind": found.kind,
            "files": list(map(str, found.files)),
            "sentence": found.sentence,
            "remedy": found.remedy,
            "leave_out": list(map(str, found.leave_out)),
        }
        for found in checkup.findings
    ]
    trained = [{**asdict(row), "picture": str(row.picture)} for row in checkup.trained]
    return {
        "pictures": checkup.pictures,
        "findings": findings,
        "trained": trained,
        "left_out": list(map(str, left_out)),
        "notices": list(notices),
    }


def _lines(checkup: Checkup, config: Config, name: str) -> Iterator[str]:
    width, height = config.resolution or (0, 0)
    yield f"{checkup.pictures} pictures, to be trained at {width} x {height}:"
    if checkup.trained:
        yield from _bucket_table(checkup.trained)
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for found in checkup.findings:
        kinds[found.kind].append(found)
    for kind, group in kinds.items():
        yield f"{kind} ({len(group)})"
        yield from (f"  {found.sentence}" for found in group[:SHOWN])
        if len(group) > SHOWN:
            yield f"  ... and {len(group) - SHOWN} more; --json names them all"
        yield from (f"  > {remedy}" for remedy in dict.fromkeys(found.remedy for found in group[:SHOWN]))
    if not kinds:
        yield "Nothing to put right."
    elif any(found.leave_out for found in checkup.findings):
        leaving = " ".join(kind for kind, group in kinds.items() if any(found.leave_out for found in group))
        yield f"To leave pictures out: doctor {name} --leave-out KIND ... ({leaving})"


def _bucket_table(trained: Sequence[Trained]) -> list[str]:
    """A line for each size trained at: how many pictures, and how much of them is cut away."""
    buckets: dict[Size, list[Trained]] = defaultdict(list)
    for row in trained:
        buckets[row.bucket].append(row)
    rows: list[tuple[object, ...]] = [("  size", "pictures", "cropped", "at most", "enlarged", "the most cropped")]
    for (width, height), group in sorted(buckets.items()):
        worst = max(group, key=lambda row: row.cropped)
        mean = sum(row.cropped for row in group) / len(group)
        enlarged = sum(row.enlarged > ENLARGED for row in group)
        name = f"{worst.picture.parent.name}/{worst.picture.name}" if worst.cropped else ""
        rows.append((f"  {width} x {height}", len(group), f"{mean:.1%}", f"{worst.cropped:.1%}", enlarged or "", name))
    return table(rows, right=range(1, 5))

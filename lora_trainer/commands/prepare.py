"""Bring pictures into a dataset, cut them and tag them; what is there already is kept unless asked."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lora_trainer.commands.datasets import add_datasets, separated
from lora_trainer.commands.output import add_force, refuse_existing, written_output
from lora_trainer.commands.progress import Phases, listener, print_json
from lora_trainer.config import SETTINGS, BadInput, Config, Problem, problems, with_values
from lora_trainer.dataset.listing import some
from lora_trainer.jobs.stops import stop_on_interrupt
from lora_trainer.packages import ROOT, activate

if TYPE_CHECKING:
    from lora_trainer.preparing.run import Prepared

# How the command spells the settings that it offers.
FLAGS = {
    "dataset_name": "--name",
    "crop": "--crop",
    "crop_size": "--size",
    "bucket_no_upscale": "--never-enlarge",
    "background": "--background",
    "tagger": "--tagger",
    "tag_threshold": "--threshold",
    "character_threshold": "--character-threshold",
    "excluded_tags": "--exclude",
    "tag_underscores": "--underscores",
    "trigger_word": "--trigger",
    "existing_captions": "--existing",
    "caption_extension": "--caption-ending",
    "repeats": "--repeats",
}

WITHOUT = {
    "crop": "Not given: what was cut stays so; none: it is whole again.",
    "crop_size": "Not given: what the picture fills of 1024x1024.",
    "tagger": "Not given: none.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", type=Path, nargs="*", metavar="FOLDER", help="folders, pictures or zip files; none: what is in it"
    )
    for name, flag in FLAGS.items():
        row = SETTINGS[name]
        if bool in row.types:
            parser.add_argument(flag, dest=name, action="store_true", default=None, help=row.help)
        else:
            choices = f"One of: {', '.join(map(str, row.choices))}." if row.choices else ""
            said = " ".join(filter(None, (row.help, choices, WITHOUT.get(name))))
            parser.add_argument(flag, dest=name, required=name == "dataset_name", metavar="VALUE", help=said)
    parser.add_argument(
        "--remove", type=separated, default=(), metavar="TAG,TAG", help="tags to take out of all captions"
    )
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="draw where the pictures would be cut, and do no more"
    )
    add_force(parser)
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="FOLDER", help="where taggers lie")
    add_datasets(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object per event, the last one the result")


def run(arguments: argparse.Namespace) -> int:
    activate()
    config = read_config(arguments)
    if arguments.preview:
        check_preview(arguments.preview, config)
        refuse_existing([arguments.preview], arguments.force)
    folder = arguments.datasets.expanduser() / config.dataset_name
    from lora_trainer.preparing.run import prepare, preview

    with stop_on_interrupt() as stop, listener(arguments.json, Phases) as report:
        if arguments.preview:
            prepared, sheet = preview(config, arguments.sources, folder, report, stop)
            if sheet:
                with written_output(arguments.preview) as temporary:
                    sheet.save(temporary, "PNG")
        else:
            uncut = arguments.crop == "none"
            prepared = prepare(
                config, arguments.sources, folder, arguments.models, arguments.remove, uncut, report, stop
            )
    if arguments.json:
        print_json("prepared", **prepared.facts())
    else:
        print("\n".join([*sentences(prepared, bool(arguments.sources)), *following(prepared, arguments.preview)]))
    return 0


def check_preview(preview: Path, config: Config) -> None:
    """Raises BadInput with all that stands against drawing it."""
    wrong = []
    if preview.suffix.lower() != ".png":
        wrong.append(Problem("preview", str(preview), "is no PNG file", "Give it a name that ends in .png."))
    if config.crop == "none":
        wrong.append(Problem("preview", None, "there are no cuts to draw", "Add --crop centre or --crop focus."))
    if wrong:
        raise BadInput(wrong)


def sentences(prepared: Prepared, imported: bool) -> Iterator[str]:
    """The result as a person reads it."""
    came = f": {prepared.added} added, {prepared.already} were there" if imported else ""
    yield f"{prepared.pictures} pictures in {prepared.folder}{came}."
    if whole := prepared.around.get("nothing"):
        yield f"Whole again: {whole}."
    elif prepared.around:
        around = ", ".join(f"{count} around {_named(what)}" for what, count in prepared.around.items())
        yield f"Cut: {around}."
    if prepared.enlarged:
        yield f"Enlarged, as they are smaller than the cut: {some(prepared.enlarged)}. --never-enlarge would not."
    if prepared.tagged:
        yield f"Tagged: {prepared.tagged}."
    yield from (f"Captions changed ({what}): {count}." for what, count in prepared.edited.items() if count)
    yield from (f"left out: {problem}" for problem in prepared.left_out)
    yield from (f"note: {notice}" for notice in prepared.notices)


def following(prepared: Prepared, preview: Path | None) -> Iterator[str]:
    """What comes next."""
    if prepared.stopped:
        yield "Stopped; the same command goes on."
    elif preview:
        yield f"The cuts are drawn in {preview}; the same command without --preview makes them."
    else:
        name = prepared.folder.name
        yield f"`tags {name}` and `doctor {name}` look at it; `train` takes it as a folder."


def _named(what: str) -> str:
    return {"face": "a face", "subject": "the subject", "centre": "the centre"}[what]


def read_config(arguments: argparse.Namespace) -> Config:
    """The settings that were given; nothing is tagged unless a tagger was named. BadInput with all that is wrong."""
    given = {name: getattr(arguments, name) for name in FLAGS if getattr(arguments, name) is not None}
    if "excluded_tags" in given:
        given["excluded_tags"] = json.dumps(separated(given["excluded_tags"]))
    config = with_values(Config(tagger="none"), [f"{name}={value}" for name, value in given.items()])
    if wrong := [problem for problem in problems(config) if problem.setting in FLAGS]:
        raise BadInput(wrong)
    return config

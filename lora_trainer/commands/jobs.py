"""Look back at jobs: what they were trained with, told, saved and drew."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from lora_trainer.commands.output import add_force, refuse_existing, write_output
from lora_trainer.commands.progress import print_json
from lora_trainer.commands.queue import show
from lora_trainer.commands.queued import (
    add_jobs,
    add_status,
    as_json,
    facts_of,
    lines_of,
    natural,
    open_queue,
    say,
)
from lora_trainer.config import dump_toml
from lora_trainer.jobs.event_log import follow
from lora_trainer.jobs.job import STATUSES, UNFINISHED

MOST = 50  # jobs that are listed where no --limit is given
LINES = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_jobs(parser)
    add_status(parser, STATUSES)
    parser.add_argument("--limit", type=natural, default=MOST, metavar="N", help=f"the newest N jobs ({MOST})")
    actions = parser.add_subparsers(metavar="ACTION")

    def action(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        added.add_argument("id", type=int, metavar="ID")
        added.set_defaults(run=run)
        add_jobs(added, of_action=True)
        return added

    action("show", show, "a job in full")
    config = action("config", show_config, "a job's settings, for `train`, `queue add` or another program")
    config.add_argument("-o", "--output", type=Path, metavar="CONFIG.toml", help="write them there")
    add_force(config)
    keep_one = action("keep", keep, "publish one of a job's LoRAs beside the last one")
    keep_one.add_argument("file", metavar="FILE", help="as `jobs show` names it")
    keep_one.add_argument("--name", metavar="NAME", help="what it is called there")
    keep_one.add_argument("--weight", type=float, metavar="WEIGHT", help="that stands on its card in the WebUI")
    keep_one.add_argument("--replace", action="store_true", help="in the place of another one of this job")
    tail = action("log", log, "the end of what a job's worker printed")
    tail.add_argument("--lines", type=natural, default=LINES, metavar="N", help=f"how many lines ({LINES})")
    told = action("events", events, "what a job told, a JSON object a line")
    told.add_argument("--offset", type=natural, default=0, metavar="N", help='from this place on, an event\'s "next"')
    told.add_argument("--follow", action="store_true", help="until the job ends")


def run(arguments: argparse.Namespace) -> int:
    jobs = open_queue(arguments).jobs(status=arguments.status, limit=arguments.limit)
    if arguments.json:
        print(as_json([facts_of(job) for job in jobs]))
    else:
        print("\n".join(lines_of(jobs)) if jobs else "There is no such job. `queue add` adds one.")
    return 0


def show_config(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    text = dump_toml(queue.work(arguments.id).config)
    if arguments.output is None:
        print(text, end="")
        return 0
    refuse_existing([arguments.output], arguments.force)
    write_output(arguments.output, text)
    return say(arguments, queue.job(arguments.id), f"{arguments.output} holds the settings of job {arguments.id}.")


def keep(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    file = Path(arguments.file).name
    kept = queue.keep(arguments.id, file, arguments.name, arguments.weight, replace=arguments.replace)
    print(as_json({"lora": kept}) if arguments.json else f"Published: {kept}")
    return 0


def log(arguments: argparse.Namespace) -> int:
    lines = open_queue(arguments).log_tail(arguments.id, arguments.lines)
    print(as_json(lines) if arguments.json else "\n".join(lines))
    return 0


def events(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    path = queue.job_folder(queue.job(arguments.id).id).events

    def is_over() -> bool:
        return not arguments.follow or queue.job(arguments.id).status not in UNFINISHED

    for event in follow(path, arguments.offset, is_over):
        print_json(event.kind, at=event.at, next=event.next, **event.facts)
    return 0

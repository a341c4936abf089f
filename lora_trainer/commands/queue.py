"""Train jobs one after the other: add them, start the queue, pause and stop what runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from lora_trainer.commands.datasets import separated
from lora_trainer.commands.queue_watch import watch
from lora_trainer.commands.queued import (
    add_jobs,
    add_status,
    as_json,
    expected,
    facts_of,
    job_meant,
    lines_of,
    open_queue,
    running_job,
    say,
    sentences,
)
from lora_trainer.commands.train import add_config, read_config
from lora_trainer.config import BadInput, Problem
from lora_trainer.hosts.alone import NoHost
from lora_trainer.jobs.job import ACTIVE, UNFINISHED
from lora_trainer.jobs.queue import PLACES, Queue
from lora_trainer.jobs.stops import stop_on_interrupt
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.jobs.work import Prepare, Work
from lora_trainer.locks import is_taken
from lora_trainer.packages import ROOT, activate

Run = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_jobs(parser)
    parser.set_defaults(status=None)
    actions = parser.add_subparsers(metavar="ACTION")

    def action(name: str, do: Run, about: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        added.set_defaults(run=do)
        add_jobs(added, of_action=True)
        return added

    _add_add(action("add", add, "queue a config"))
    add_status(action("list", run, "what runs and what waits, in order, as without an action"), UNFINISHED)
    action("start", start, "run the jobs until none is left; Ctrl-C leaves the one that runs running")
    for name, (do, about) in COMMANDS.items():
        _add_id(action(name, do, about))
    stopping = action("stop", stop, "stop a job at its next step, so that `resume` can go on")
    _add_id(stopping)
    stopping.add_argument("--save", action="store_true", help="save a LoRA of what it has learned, too")
    _add_id(action("show", show, "a job in full"))
    moving = action("move", move, "let a job run earlier or later")
    moving.add_argument("id", type=int, metavar="ID")
    moving.add_argument("where", choices=PLACES)
    for name, do, about in (("copy", copy, "queue a job's config once more"), ("delete", delete, DELETING)):
        action(name, do, about).add_argument("id", type=int, metavar="ID")
    again = action("retry", retry, "queue a job again that failed, was stopped or interrupted")
    again.add_argument("id", type=int, metavar="ID")
    again.add_argument("--fresh", action="store_true", help="from the beginning, not from its last state")


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=int, nargs="?", metavar="ID", help="not given: the job that runs")


def _add_add(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--first", action="store_true", help="before the jobs that wait")
    prepare = parser.add_argument_group("preparing a dataset before it trains, as the config's settings say")
    prepare.add_argument("--prepare", metavar="DATASET", help="the folder of the dataset to cut and tag")
    prepare.add_argument("--import", nargs="+", default=[], dest="sources", metavar="FOLDER", help="brought into it")
    prepare.add_argument("--remove", type=separated, default=(), metavar="TAG,TAG", help="taken out of all captions")
    prepare.add_argument("--uncut", action="store_true", help="pictures that were cut are whole again")
    prepare.add_argument("--models", default=str(ROOT / "models"), metavar="FOLDER", help="where taggers lie")
    prepare.add_argument("--prepare-only", action="store_true", help="do not train")


def add(arguments: argparse.Namespace) -> int:
    activate()
    queue, work = open_queue(arguments), read_work(arguments)
    job = queue.add(work, first=arguments.first)
    said = f"Job {job.id}, {job.name}, is queued; `queue start` runs what is queued."
    return say(arguments, job, f"{said} {expected(queue.estimate(work.config))}" if work.train else said)


def read_work(arguments: argparse.Namespace) -> Work:
    """The config and what to prepare first. BadInput with all that is wrong."""
    config = read_config(arguments)
    if arguments.prepare:
        named = (arguments.prepare, tuple(arguments.sources), tuple(arguments.remove), arguments.uncut)
        return Work(config, Prepare(*named, arguments.models), train=not arguments.prepare_only)
    if arguments.sources or arguments.remove or arguments.uncut or arguments.prepare_only:
        raise BadInput(Problem("prepare", None, "no dataset is named", "Name its folder with --prepare."))
    return Work(config)


def run(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    jobs = [job for job in queue.line() if arguments.status in (None, job.status)]
    if arguments.json:
        print(as_json([facts_of(job) for job in jobs]))
    else:
        print("\n".join(lines_of(jobs)) if jobs else "Nothing runs and nothing waits. `queue add` adds a job.")
        if any(job.status in ACTIVE for job in jobs) and not is_taken(queue.supervisor_lock):
            print("Nobody watches the queue, so that this may be out of date; `queue start` does.")
    return 0


def start(arguments: argparse.Namespace) -> int:
    activate()
    queue = open_queue(arguments)
    supervisor = Supervisor(queue, NoHost())
    with stop_on_interrupt() as stop:
        supervisor.start()
        try:
            ended = watch(queue, supervisor, stop, arguments.json)
        finally:
            supervisor.close()
    if stop.wanted:
        job = running_job(queue)
        left = f"Job {job.id} goes on by itself; `queue start` watches it again." if job else "Nothing was running."
        print(left, file=sys.stderr)
        return 0
    return 1 if any(job.status in ("failed", "interrupted") for job in ended) else 0


def pause(arguments: argparse.Namespace) -> int:
    return _tell(arguments, Queue.pause, "pauses at its next step; `queue resume` lets it go on")


def resume(arguments: argparse.Namespace) -> int:
    return _tell(arguments, Queue.resume, "goes on", "goes next, and on from its last state")


def save(arguments: argparse.Namespace) -> int:
    return _tell(arguments, Queue.save, "saves a LoRA at its next step; `jobs show` lists it")


def sample(arguments: argparse.Namespace) -> int:
    return _tell(arguments, Queue.sample, "draws previews at its next step")


def stop(arguments: argparse.Namespace) -> int:
    told = partial(Queue.stop, save=arguments.save)
    return _tell(arguments, told, "stops at its next step; `queue resume` goes on with it", "is stopped")


def _tell(arguments: argparse.Namespace, told: Callable[[Queue, int], str], then: str, at_once: str = "") -> int:
    """`then` is what its worker will do, `at_once` what has happened to a job without one."""
    queue = open_queue(arguments)
    job = job_meant(queue, arguments.id)
    outcome = then if told(queue, job.id) else at_once
    return say(arguments, queue.job(job.id), f"Job {job.id}, {job.name}, {outcome}.")


def move(arguments: argparse.Namespace) -> int:
    job = open_queue(arguments).move(arguments.id, arguments.where)
    return say(arguments, job, f"Job {job.id}, {job.name}, is moved.")


def retry(arguments: argparse.Namespace) -> int:
    job = open_queue(arguments).retry(arguments.id, fresh=arguments.fresh)
    return say(arguments, job, f"Job {job.id}, {job.name}, is queued again, and goes next.")


def copy(arguments: argparse.Namespace) -> int:
    activate()
    queue = open_queue(arguments)
    job = queue.copy(arguments.id)
    return say(arguments, job, f"Job {job.id}, {job.name}, is queued, a copy of job {arguments.id}.")


def delete(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    job = queue.job(arguments.id)
    queue.delete(job.id)
    return say(arguments, job, f"Job {job.id}, {job.name}, is deleted; the LoRAs that it published stay.")


def show(arguments: argparse.Namespace) -> int:
    queue = open_queue(arguments)
    job = job_meant(queue, arguments.id)
    loras, samples = queue.loras(job.id), queue.samples(job.id)
    if arguments.json:
        print(as_json({**facts_of(job), "loras": loras, "samples": samples}))
        return 0
    print("\n".join([*sentences(job), *(f"saved {path}" for path in loras)]))
    if job.status == "failed":
        print("The log ends with:", *queue.log_tail(job.id, 10), sep="\n  ")
    return 0


DELETING = "take a job and its folder away; the LoRAs that it published stay"
COMMANDS: dict[str, tuple[Run, str]] = {
    "pause": (pause, "let a job wait at its next step, off the GPU"),
    "resume": (resume, "go on with a job that was paused, stopped, interrupted or failed"),
    "save": (save, "save a LoRA at the next step"),
    "sample": (sample, "draw previews at the next step"),
}

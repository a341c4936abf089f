"""The command line: `python -m lora_trainer COMMAND`.

Exit codes: 0 done, or stopped by Ctrl-C and saved; 1 failed; 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lora_trainer import __version__
from lora_trainer.commands import (
    check,
    demo,
    doctor,
    export,
    focus,
    import_,
    inspect,
    jobs,
    prepare,
    queue,
    serve,
    settings,
    setup,
    tags,
    train,
    worker,
)
from lora_trainer.config import BadInput
from lora_trainer.jobs.job import NoSuchJob, WrongState
from lora_trainer.jobs.store import QueueFailed
from lora_trainer.packages import PackageProblem
from lora_trainer.training.failure import TrainingFailed

COMMANDS = (
    *(demo, serve, prepare, focus, tags, doctor, train, queue, jobs, check, import_, export, inspect),
    *(settings, setup, worker),
)


def main(arguments: Sequence[str] | None = None) -> int:
    _speak_utf8()
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except (BadInput, NoSuchJob, WrongState) as error:
        print(error, file=sys.stderr)
        return 2
    except (TrainingFailed, PackageProblem, QueueFailed) as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read this, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python's last flush then goes
        return 1
    except KeyboardInterrupt:
        print("Stopped at once; what was saved before stays.", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    described = "Trains LoRAs for Stable Diffusion and Flux."
    parser = argparse.ArgumentParser(prog="python -m lora_trainer", description=described)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2].rstrip("_")
        description = (command.__doc__ or "").strip()
        added = commands.add_parser(name, help=description.splitlines()[0], description=description)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


def _speak_utf8() -> None:
    """A Windows console's own encoding fails on Japanese names and emoji."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    sys.exit(main())

"""Do the job in a folder of the queue, as the queue's supervisor has it done."""

from __future__ import annotations

import argparse
from pathlib import Path

from lora_trainer.worker.run import work


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the job's, such as jobs/12")


def run(arguments: argparse.Namespace) -> int:
    return work(arguments.folder.absolute())

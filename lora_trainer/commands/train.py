"""Train a LoRA as a config says; an interrupted run of the same config goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from lora_trainer.commands.progress import listener
from lora_trainer.config import load_toml
from lora_trainer.packages import activate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    add_changes(parser)
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run of this name and begin again")
    parser.add_argument("--json", action="store_true", help="print one JSON object per event instead of a progress bar")


def add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that replace the config's"
    )


def run(arguments: argparse.Namespace) -> int:
    activate()
    config = load_toml(arguments.config, arguments.set)
    from lora_trainer.training.loop import train
    from lora_trainer.training.stops import stop_on_interrupt

    with stop_on_interrupt() as stop, listener(arguments.json) as report:
        train(config, report, stop, arguments.fresh)
    return 0

"""Train a LoRA as a config says; an interrupted run of the same config goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from lora_trainer.commands.progress import Bar, listener
from lora_trainer.config import PRESETS, Config, apply_preset, load_toml
from lora_trainer.imports import UNUSED, without
from lora_trainer.packages import activate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run of this name and begin again")
    parser.add_argument("--json", action="store_true", help="print one JSON object per event instead of a progress bar")


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings that replace the config's"
    )
    parser.add_argument(
        "--preset", metavar="NAME", help=f"what the config leaves out is as in this preset: {', '.join(PRESETS)}"
    )


def read_config(arguments: argparse.Namespace) -> Config:
    """The preset's values, over them the file's, over them those of --set. BadInput with all that is wrong."""
    start = apply_preset(Config(), arguments.preset) if arguments.preset else Config()
    return load_toml(arguments.config, arguments.set, start)


def run(arguments: argparse.Namespace) -> int:
    activate()
    config = read_config(arguments)
    with without(*UNUSED):
        from lora_trainer.training.loop import train
    from lora_trainer.jobs.stops import stop_on_interrupt

    with stop_on_interrupt() as stop, listener(arguments.json, Bar) as report:
        train(config, report, stop, arguments.fresh)
    return 0

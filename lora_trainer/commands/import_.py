"""Make a config of another trainer's: sd-scripts, kohya_ss, lora-scripts, AWS, launch files, or a LoRA itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lora_trainer.commands.output import add_force, refuse_existing, write_output
from lora_trainer.config import as_dict, dump_toml
from lora_trainer.config.interchange import import_files
from lora_trainer.dataset.steps import count_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="TOML, JSON, .bat, .ps1, .sh or a LoRA; what belongs together",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CONFIG.toml", help="the config to write")
    parser.add_argument("--preset", metavar="NAME", help="which one, of a file that holds several")
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    refuse_existing([arguments.output], arguments.force)
    imported = import_files(arguments.files, arguments.preset, count_steps)
    write_output(arguments.output, dump_toml(imported.config))
    if arguments.json:
        facts = {"output": str(arguments.output), "config": as_dict(imported.config), **imported.report.as_dict()}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print("\n".join(imported.report.lines()))
        print(f"Written to {arguments.output}; `check` says what it still needs.")
    return 0

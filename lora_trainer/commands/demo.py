"""Set up, train a LoRA of seven pictures on the miniature base in minutes, and show what it learned."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lora_trainer.packages import activate, ensure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR", help="where results go")
    parser.add_argument("--json", action="store_true", help="print JSON, an object per event and the report at the end")


def run(arguments: argparse.Namespace) -> int:
    ensure()
    activate()
    from lora_trainer.commands.progress import Bar, listener
    from lora_trainer.demo.run import run_demo

    with listener(arguments.json, Bar) as report:
        result = run_demo(arguments.out, report)
    print(json.dumps(asdict(result)) if arguments.json else result.sentence)
    return 0 if result.learned else 1

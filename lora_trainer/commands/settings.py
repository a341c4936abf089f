"""List every setting with its default, its bounds and what it does."""

from __future__ import annotations

import argparse
import json

from lora_trainer.config import schema, settings_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print them as a JSON Schema")


def run(arguments: argparse.Namespace) -> int:
    print(json.dumps(schema(), ensure_ascii=False, indent=1) if arguments.json else settings_table())
    return 0

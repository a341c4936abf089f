"""Say what a picture would be cut around: its main face, or what stands out in it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lora_trainer.config import BadInput
from lora_trainer.packages import activate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", type=Path, nargs="+", metavar="FILE", help="pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture")


def run(arguments: argparse.Namespace) -> int:
    activate()
    from lora_trainer.dataset.pictures import read_picture
    from lora_trainer.preparing.focus import load_finder

    find = load_finder()
    for path in arguments.pictures:
        facts: dict[str, Any] = {"picture": str(path), "what": "centre"}
        try:
            if focus := find(read_picture(path)):
                facts |= {"what": focus.what, "box": focus.box}
        except BadInput as error:
            facts |= {"what": "", "problem": str(error)}
        print(json.dumps(facts, ensure_ascii=False) if arguments.json else _line(facts), flush=True)
    return 0


def _line(facts: dict[str, Any]) -> str:
    return f"{facts['picture']}: {facts.get('problem') or facts['what']} {facts.get('box', '')}".rstrip()

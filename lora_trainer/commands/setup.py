"""Install the training packages into the private folder, leaving the running Python as it is."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress

from lora_trainer import packages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--look", action="store_true", help="install nothing, and say whether they are there")
    parser.add_argument("--again", action="store_true", help="even if they are there, as where one is damaged")
    parser.add_argument("--json", action="store_true", help="print JSON, an object per line, the state at last")


def run(arguments: argparse.Namespace) -> int:
    """0 where the packages are there at last, else 1."""
    if not arguments.json:
        state, sentence = _settled(arguments, packages.say)
        print(sentence)
        return int(state != "ready")
    try:
        state, sentence = _settled(arguments, _tell)
    except (packages.PackageProblem, OSError) as problem:
        state, sentence = "failed", str(problem)
    print(json.dumps({"state": state, "line": sentence}), flush=True)
    return int(state != "ready")


def _settled(arguments: argparse.Namespace, progress: packages.Progress) -> tuple[str, str]:
    """What state the packages are in then, and a sentence that says so. An installation that goes on is waited for."""
    if arguments.look and (sentence := packages.lacking()) and not packages.is_being_filled():
        return "missing", sentence
    packages.ensure(progress, arguments.again)
    return "ready", "The training packages are installed."


def _tell(line: str, share: float) -> None:
    with suppress(BrokenPipeError):  # who listened has been started anew, and finds the packages installed
        print(json.dumps({"line": line.strip(), "share": round(share, 3)}), flush=True)

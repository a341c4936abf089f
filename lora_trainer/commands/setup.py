"""Install the training packages into the private folder, leaving the running Python as it is."""

from __future__ import annotations

import argparse

from lora_trainer.packages import ensure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    ensure()
    print("The training packages are installed.")
    return 0

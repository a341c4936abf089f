"""What the commands about datasets have in common: how one is named, and how lists and tables are written."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from lora_trainer.config import BadInput, Problem
from lora_trainer.dataset.captions import tags
from lora_trainer.dataset.listing import some


def add_datasets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--datasets", type=Path, default=Path("datasets"), metavar="FOLDER", help="where the datasets are (./datasets)"
    )


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a dataset's name, or any folder of pictures")
    add_datasets(parser)


def dataset_folder(arguments: argparse.Namespace) -> Path:
    """The folder that NAME stands for: a dataset's, else the path itself. BadInput where there is none."""
    path, datasets = Path(arguments.name).expanduser(), arguments.datasets.expanduser()
    if path.name == arguments.name and (datasets / path).is_dir():
        return Path(datasets / path)
    if path.is_dir():
        return path
    known = sorted(entry.name for entry in datasets.iterdir() if entry.is_dir()) if datasets.is_dir() else []
    there = f"There is {some(known)}." if known else "Make one with `prepare`."
    raise BadInput(Problem("dataset", arguments.name, f"is neither a folder nor a dataset in {datasets}", there))


def separated(text: str) -> tuple[str, ...]:
    """The tags of an option, which have commas between them."""
    return tuple(tags(text))


def table(rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> list[str]:
    """Lines with the columns under each other; those numbered in `right` end together."""
    texts = [list(map(str, row)) for row in rows]
    widths = [max(map(_width, column)) for column in zip(*texts)]
    lines = []
    for row in texts:
        cells = [_padded(text, width, at in right) for at, (text, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _padded(text: str, width: int, to_the_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if to_the_right else text + space


def _width(text: str) -> int:
    """Columns on a terminal: two for a Chinese, Japanese or Korean letter."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)

"""Say what a file is: a base model and its family, or a LoRA and how it was trained."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lora_trainer.inspecting import describe, identify
from lora_trainer.inspecting.parts import PARTS, find_parts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a model file, or a diffusers folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    facts = describe(arguments.file)
    if facts.get("variant"):
        facts["parts"] = _parts(arguments.file)
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print("\n".join(_lines(facts)))
    return 0


def _parts(base: Path) -> dict[str, str]:
    """The files that a Flux base would be trained with."""
    files = find_parts(identify(base), {}).files
    return {part: str(files.get(part, "missing")) for part in PARTS}


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append(f"{indent}{name}: {shown}")
    return lines

"""Write a config for sd-scripts, so that it trains the same there, and say how to start it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_trainer.commands.output import add_force, refuse_existing, write_output
from lora_trainer.commands.train import add_config, read_config
from lora_trainer.config import SETTINGS, BadInput, Config, check
from lora_trainer.config.interchange import start_files, to_sd_scripts
from lora_trainer.packages import PackageProblem, activate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PLACE", help="a folder, or a file whose name ends in .toml"
    )
    add_force(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    config = read_config(arguments)
    check(config)
    settled, steps, unknown = _settled(config)
    exported = to_sd_scripts(_absolute(settled), steps)
    files = start_files(exported, _place(arguments.output, config))
    refuse_existing(list(files), arguments.force)
    for path, text in files.items():
        write_output(path, text)
    training = next(iter(files))
    command = f'accelerate launch {exported.script} --config_file "{training}"'
    if arguments.json:
        facts = {"command": command, "files": [str(path) for path in files], **exported.report.as_dict()}
        print(json.dumps({**facts, "guessed": unknown}, ensure_ascii=False))
        return 0
    print("\n".join(exported.report.lines()))
    print("\n".join(f"note: {line}" for line in unknown))
    print(f"In sd-scripts' folder: {command}")
    return 0


def _settled(config: Config) -> tuple[Config, int | None, list[str]]:
    """The config with what its base and pictures decide, its steps, and why neither is known where that is so."""
    try:
        activate()
        from lora_trainer.training.plan import make_plan

        plan = make_plan(config)
    except (BadInput, PackageProblem) as error:
        return config, None, [f"what base and pictures decide is guessed: {line}" for line in str(error).splitlines()]
    known: dict[str, Any] = {
        "prediction_type": plan.prediction_type,
        "zero_terminal_snr": "on" if plan.zero_terminal_snr else "off",
        "shuffle_tags": any(picture.subset.shuffle_tags for picture in plan.pictures),
    }
    return replace(plan.config, **known), plan.total_steps, []


def _absolute(config: Config) -> Config:
    """With whole paths to what is there, as sd-scripts is started in another folder."""
    paths = {name: _whole(getattr(config, name)) for name, row in SETTINGS.items() if row.path}
    subsets = tuple(replace(subset, folder=_whole(subset.folder)) for subset in config.subsets)
    return replace(config, **{**paths, "subsets": subsets, "output_folder": str(Path(config.output_folder).absolute())})


def _whole(path: str | None) -> Any:
    if not path:
        return path
    place = Path(path).expanduser()
    return str(place.absolute()) if place.exists() else path


def _place(output: Path, config: Config) -> Path:
    """The training config's file; others stand beside it, named after it."""
    if output.suffix.lower() == ".toml" and not output.is_dir():
        return output.absolute()
    return output.absolute() / f"{config.output_name or config.dataset_name or 'training'}.toml"

"""The files that sd-scripts is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lora_trainer.config.interchange.exporting import Exported
from lora_trainer.config.toml_file import dump_table


def start_files(exported: Exported, training: Path) -> dict[Path, str]:
    """What to write where, the training config first: to `training`, the others beside it and named after it."""
    dataset = training.with_name(f"{training.stem}_dataset.toml")
    prompts = training.with_name(f"{training.stem}_prompts.txt")
    arguments = {**exported.training, "dataset_config": str(dataset)}
    if exported.prompts:
        arguments["sample_prompts"] = str(prompts)
    files = {training: dump_table(arguments), dataset: _dataset_text(exported.dataset)}
    return files | ({prompts: "\n".join(exported.prompts) + "\n"} if exported.prompts else {})


def _dataset_text(dataset: dict[str, Any]) -> str:
    parts = [f"[general]\n{dump_table(dataset['general'])}"]
    for table in dataset["datasets"]:
        parts.append("[[datasets]]\n")
        parts += [f"[[datasets.subsets]]\n{dump_table(subset)}" for subset in table["subsets"]]
    return "\n".join(parts)

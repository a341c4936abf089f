"""Check a config, its base model and its pictures, without training or writing anything."""

from __future__ import annotations

import argparse
import json

from lora_trainer.commands.train import add_config, read_config
from lora_trainer.packages import activate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    activate()
    config = read_config(arguments)
    from lora_trainer.training.plan import fingerprint, make_plan
    from lora_trainer.training.run import interrupted, new_outputs

    plan = make_plan(config)
    if not interrupted(plan, fingerprint(plan)):
        new_outputs(plan)
    facts = {
        "base": plan.base.path.name,
        "family": plan.base.family,
        "prediction_type": plan.prediction_type,
        "pictures": len(plan.pictures),
        "batches_per_epoch": plan.batches_per_epoch,
        "epochs": plan.epochs,
        "steps": plan.total_steps,
    }
    if arguments.json:
        print(json.dumps({**facts, "notices": plan.remarks}, ensure_ascii=False))
        return 0
    print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    print("\n".join(f"note: {line}" for line in plan.remarks) or "Nothing to put right.")
    return 0

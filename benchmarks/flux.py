"""Ours and sd-scripts side by side on Flux, and the modules of a LoRA for the whole of FLUX.1.

    python -m benchmarks.flux --sd-scripts FOLDER --json OUT [--cases real ...] [--table FILE] [--bases FOLDER]

As `benchmarks.parity`, on bases with random weights, one double and two single blocks: "real" ones have FLUX.1's widths
(6 GB of memory, 4 GB of disk), the others are small. The JSON has `loss_rel` and `weights_rel`, the largest of all
cases that should be equal, `full_depth_modules`, how many modules a LoRA of FLUX.1 dev has (304), `full_depth_wrong`,
its tensors that are not as the format says, and each case under `cases`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.flux_cases import CASES
from benchmarks.full_depth import expected, made, modules
from benchmarks.parity import Results, add_arguments, changed, named, run_cases
from lora_trainer.packages import activate


def main() -> int:
    arguments = _arguments()
    activate()
    depth = full_depth()
    print(f"a LoRA of FLUX.1 dev: {depth['full_depth_modules']} modules, wrong: {depth['full_depth_wrong'] or 'none'}")
    cases = changed(named(CASES, arguments.cases), shlex.join(arguments.set))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.bases or Path(temporary)
        differs = run_cases(cases, arguments, folder, lambda results: worst(results) | depth | {"cases": results})
    return int(differs or bool(depth["full_depth_wrong"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, CASES)
    parser.add_argument("--bases", type=Path, help="a folder that keeps the bases for another run")
    parser.set_defaults(base=None, pictures=None, resolution=128, steps=10)
    return parser.parse_args()


def worst(results: Results) -> dict[str, float | None]:
    """The largest differences of the cases without a difference on purpose; None where one of them failed."""
    equal = [result for result in results.values() if not result["exception"]]
    failed = any(result["loss_rel"] is None for result in equal)
    return {
        name: None if failed else max((result[name] for result in equal), default=None)
        for name in ("loss_rel", "weights_rel")
    }


def full_depth(rank: int = 16) -> dict[str, Any]:
    ours, format_ = made(rank), expected(rank)
    wrong = sorted(key for key in ours.keys() | format_.keys() if ours.get(key) != format_.get(key))
    return {"full_depth_modules": modules(ours), "full_depth_wrong": wrong}


if __name__ == "__main__":
    sys.exit(main())

"""Ours and sd-scripts side by side: the same training in both, loss by loss, and the LoRAs that they save.

    python -m benchmarks.parity --sd-scripts FOLDER --json OUT [--cases sd15-min-snr ...] [--table FILE]
    python -m benchmarks.parity --sd-scripts FOLDER --json OUT --family sdxl --set min_snr_gamma=5 schedule=linear

Both get the same base, pictures, first LoRA weights, noise, timesteps and captions' order, in float32 on the CPU; the
arguments for sd-scripts are those that `lora_trainer export` writes. Each case is a set of changes to our config.
The JSON has for each case `loss_rel`, the largest relative difference of a step's loss, and `weights_rel`, that of the
saved weights, |ours - theirs| / |theirs| over all tensors; `change_rel` is stricter, / |theirs - start|.
Without --base a small one with random weights is made, in which every layer of the real one stands.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.parity_cases import CASES, Case
from benchmarks.peer import find_python
from lora_trainer.packages import activate

Results = dict[str, dict[str, Any]]
AnyCase = TypeVar("AnyCase", bound=Case)
FAMILIES = ("sd15", "sdxl")
LOSS_BAR, WEIGHTS_BAR = 1e-4, 1e-3


def main() -> int:
    arguments = _arguments()
    activate()
    with tempfile.TemporaryDirectory() as folder:
        return run_cases(chosen_cases(arguments), arguments, Path(folder), lambda results: results)


def run_cases(
    cases: Mapping[str, Case], arguments: argparse.Namespace, folder: Path, summary: Callable[[Results], object]
) -> int:
    """Runs the cases, with their bases in `folder`; after each, the `summary` of all results is written as JSON.

    Returns 1 if one of them differs without a known reason.
    """
    import torch

    from benchmarks.parity_run import measured

    torch.set_num_threads(arguments.threads)
    python = find_python(arguments.sd_scripts, arguments.python)
    results: Results = {}
    began = time.monotonic()
    for name, case in cases.items():
        results[name] = result = measured(name, case, arguments, python, folder)
        print(line(name, result), flush=True)
        arguments.json.write_text(json.dumps(summary(results), indent=1), encoding="utf-8")
    table = markdown(results, time.monotonic() - began)
    if arguments.table:
        arguments.table.write_text(table, encoding="utf-8")
    print(f"\n{table}")
    return int(any(verdict(result) == "differs" for result in results.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, CASES)
    parser.add_argument("--family", choices=FAMILIES, help="for --set, and to run the cases of one family only")
    parser.add_argument("--base", type=Path, help="a checkpoint instead of the small one")
    parser.add_argument("--pictures", type=Path, help="a folder of pictures with captions instead of drawn ones")
    parser.add_argument("--resolution", type=int, default=128)
    return parser.parse_args()


def add_arguments(parser: argparse.ArgumentParser, cases: Iterable[str]) -> None:
    """What the parity benchmarks of all families take."""
    parser.add_argument("--sd-scripts", type=Path, required=True, help="a folder with sd-scripts")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--table", type=Path, help="write the results as a table in Markdown, too")
    parser.add_argument("--python", type=Path, help="the Python that runs sd-scripts (default: found or installed)")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help=f"some of: {', '.join(cases)}")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE",
                        help="settings of our config: a case of your own, or added to the --cases named")  # fmt: skip
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)


def chosen_cases(arguments: argparse.Namespace) -> dict[str, Case]:
    """The cases asked for by name, or by --set, or all; with a base or a family, those of that family."""
    from lora_trainer.inspecting import identify

    family = identify(arguments.base).family if arguments.base else arguments.family
    own = shlex.join(arguments.set)
    if own and not arguments.cases:
        return {f"{each} {own}": Case(each, own) for each in ([family] if family else FAMILIES)}
    of_family = {name: case for name, case in named(CASES, arguments.cases).items() if family in (None, case.family)}
    return changed(of_family, own)


def named(cases: Mapping[str, AnyCase], names: Iterable[str] | None) -> dict[str, AnyCase]:
    """Those of these names, or all where there are none."""
    if unknown := [name for name in names or () if name not in cases]:
        raise SystemExit(f"No such case: {', '.join(unknown)}. There are: {', '.join(cases)}.")
    return {name: cases[name] for name in names or cases}


def changed(cases: Mapping[str, AnyCase], settings: str) -> dict[str, AnyCase]:
    """The cases with more settings, as `--set` takes them."""
    return {name: replace(case, changes=f"{case.changes} {settings}".strip()) for name, case in cases.items()}


def verdict(result: Mapping[str, Any]) -> str:
    """ "equal" within the bars, "explained" where a difference on purpose is known, else "differs"."""
    if result["loss_rel"] is not None and result["loss_rel"] <= LOSS_BAR and result["weights_rel"] <= WEIGHTS_BAR:
        return "equal"
    return "explained" if result["exception"] else "differs"


def line(name: str, result: Mapping[str, Any]) -> str:
    if result["loss_rel"] is None:
        return f"{name}: failed: {result['error']}"
    numbers = " ".join(f"{key} {result[key]:.1e}" for key in ("loss_rel", "weights_rel", "change_rel"))
    return f"{name}: {verdict(result)}, {numbers}"


def markdown(results: Mapping[str, Mapping[str, Any]], seconds: float) -> str:
    equal = sum(verdict(result) == "equal" for result in results.values())
    import torch

    rows = [
        f"{equal} of {len(results)} cases within {LOSS_BAR:g} (loss, each step) and {WEIGHTS_BAR:g} (weights). "
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()} {platform.system()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, float32 on the CPU, {seconds / 60:.0f} minutes.",
        "",
        "| case | settings | loss | weights | change | |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        if result["loss_rel"] is None:
            rows.append(f"| {name} | | | | | failed |")
            continue
        numbers = " | ".join(f"{result[key]:.1e}" for key in ("loss_rel", "weights_rel", "change_rel"))
        remark = "" if verdict(result) == "equal" else f"{verdict(result)}: {result['exception']}"
        settings = result["changes"] if len(result["changes"]) < 90 else f"{result['changes'][:80]} ..."
        rows.append(f"| {name} | {settings} | {numbers} | {remark} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())

"""One parity case: our training and sd-scripts', of the same, and how far apart they end."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.flux_base import BASES, flux_base
from benchmarks.flux_cases import FluxCase
from benchmarks.parity_cases import Case, explanation
from benchmarks.peer import PeerFailed, run_peer
from benchmarks.sample_pictures import make_pictures
from benchmarks.small_base import SIZES, make_small_base
from lora_trainer.config import BadInput, Config, Subset, with_values
from lora_trainer.config.interchange import to_sd_scripts
from lora_trainer.jobs.events import silent
from lora_trainer.training.device import choose_precision
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.loop import train
from lora_trainer.training.lora_file import load_lora, save_lora
from lora_trainer.training.models import Models, load_models
from lora_trainer.training.plan import Plan, make_plan
from lora_trainer.training.randomness import generator_for, seed_for

CPU = torch.device("cpu")


def measured(name: str, case: Case, arguments: argparse.Namespace, python: Path, workspace: Path) -> dict[str, Any]:
    """The case's result; `error` instead of numbers where one of the two did not train."""
    try:
        return run_case(case, arguments, python, workspace)
    except (BadInput, TrainingFailed, PeerFailed) as error:
        return {"loss_rel": None, "weights_rel": None, "error": str(error), "exception": ""}


def run_case(case: Case, arguments: argparse.Namespace, python: Path, workspace: Path) -> dict[str, Any]:
    base, sizes = base_of(case, arguments, workspace)
    pictures = arguments.pictures or make_pictures(workspace, case.pictures)
    with tempfile.TemporaryDirectory(dir=workspace) as folder:
        place = Path(folder)
        plan = make_plan(config_of(case, base, pictures, arguments, place / "ours"))
        start = place / "start.safetensors"
        draws = prepare(plan, start) | {"sizes": sizes}
        plan = replace(plan, config=replace(plan.config, start_lora=str(start)))
        steps, ours = run_ours(plan)
        script, given = peer_arguments(plan, place)
        run = run_peer(
            python, arguments.sd_scripts, script, given, place, threads=arguments.threads, cpu=True, draws=draws,
            t5_tokenizer=plan.base.parts.get("t5_tokenizer"),
        )  # fmt: skip
        losses, their_losses = ([loss for _, loss in each] for each in (steps, run.steps))
        found = compare(losses, their_losses, load_lora(ours), load_lora(run.lora), load_lora(start))
    return found | {
        "steps": len(steps),
        "step_cpu_s": [median(each) for each in ([seconds for seconds, _ in steps], run.cpu_s)],
        "changes": case.changes,
        "exception": case.why or explanation(plan),
    }


def base_of(case: Case, arguments: argparse.Namespace, workspace: Path) -> tuple[Path, dict[str, Any] | None]:
    """The case's base, and the sizes that sd-scripts has to be told of a small one."""
    if arguments.base:
        return arguments.base, None
    if isinstance(case, FluxCase):
        return flux_base(case.base, workspace), BASES[case.base].peer_sizes()
    base = workspace / f"{case.family}{'' if case.symmetric else '-turned'}.safetensors"
    if not base.exists():
        make_small_base(case.family, base, case.symmetric)
    return base, SIZES[case.family]


def config_of(case: Case, base: Path, pictures: Path, arguments: argparse.Namespace, output: Path) -> Config:
    config = Config(
        base_model=str(base),
        subsets=(Subset(folder=str(pictures)),),
        repeats=1,
        resolution=(arguments.resolution, arguments.resolution),
        min_bucket=64,
        max_bucket=2 * arguments.resolution,
        max_steps=arguments.steps,
        batch_size=1,
        rank=4,
        alpha=2.0,
        learning_rate=1e-3,
        schedule="constant",
        shuffle_tags=False,
        optimizer="AdamW",
        mixed_precision="no",
        seed=42,
        save_precision="fp32",
        save_state="off",
        output_name="lora",
        output_folder=str(output),
        preview_every_epochs=0,
        preview_at_start=False,
    )
    return with_values(config, shlex.split(case.changes))


def prepare(plan: Plan, start: Path) -> dict[str, Any]:
    """Writes the LoRA that both begin with to `start`; returns the draws that both make."""
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    save_lora(start, first_weights(models, plan.seed), {}, "fp32")
    return draws_of(plan, models)


def first_weights(models: Models, seed: int) -> dict[str, Tensor]:
    """A LoRA to start from: ours at its start, but with an upper half that is not 0, so that all weights have gradients
    from the first step on."""
    models.initialise_network()
    tensors = {key: tensor.clone() for key, tensor in models.network.state_dict().items()}
    for key, tensor in tensors.items():
        if not key.endswith(".alpha") and not tensor.any():
            tensors[key] = torch.randn(tensor.shape, generator=generator_for(seed, "parity", key)) * 0.05
    return tensors


def run_ours(plan: Plan) -> tuple[list[tuple[float, float]], Path]:
    """Seconds of the CPU and loss of each step, and the saved LoRA."""
    steps: list[tuple[float, float]] = []
    last = time.process_time()

    def listen(event: str, /, **facts: Any) -> None:
        nonlocal last
        if event == "progress":
            steps.append((time.process_time() - last, facts["loss"]))
        last = time.process_time()

    outcome = train(plan.config, listen, fresh=True)
    assert outcome.lora is not None, "nobody stopped it"
    return steps, outcome.lora


def peer_arguments(plan: Plan, place: Path) -> tuple[str, list[str]]:
    """The script of sd-scripts and its arguments: our config exported, and where to write."""
    known = replace(
        plan.config,
        prediction_type=plan.prediction_type,
        zero_terminal_snr="on" if plan.zero_terminal_snr else "off",
        output_folder=str(place / "theirs"),
    )
    exported = to_sd_scripts(known, plan.total_steps)
    training, dataset = place / "training.toml", place / "dataset.json"
    lines = [f"{name} = {json.dumps(value)}" for name, value in exported.training.items()]
    training.write_text("\n".join(lines), encoding="utf-8")
    dataset.write_text(json.dumps(exported.dataset), encoding="utf-8")
    files = ["--config_file", str(training), "--dataset_config", str(dataset)]
    return Path(exported.script).stem, [*files, "--max_data_loader_n_workers", "0"]


def draws_of(plan: Plan, models: Models) -> dict[str, Any]:
    """What `peer_draws.py` needs to draw as ours does; but for the sizes of the models."""
    paths = [str(picture.path.resolve()) for picture in plan.pictures]
    seeds = {
        path: [seed_for("latents", models.pictures.key(index, flipped)) for flipped in (False, True)]
        for index, path in enumerate(paths)
        if plan.config.cache_latents != "off"
    }
    epochs = [[[paths[index] for index in batch] for batch in plan.batches(epoch)] for epoch in range(plan.epochs)]
    return {
        "seed": plan.seed,
        "family": plan.base.family,
        "epochs": epochs,
        "latents": seeds,
        "accumulation": plan.config.gradient_accumulation,
    }


def compare(
    losses: Sequence[float], their_losses: Sequence[float], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
) -> dict[str, Any]:  # fmt: skip
    """The differences of the two runs' losses and weights; PeerFailed if there is not the same to compare."""
    keys = {key for key in theirs if not key.endswith(".alpha")}
    if len(losses) != len(their_losses) or keys != {key for key in ours if not key.endswith(".alpha")}:
        raise PeerFailed(
            f"Ours took {len(losses)} steps, theirs {len(their_losses)}; "
            f"tensors of one only: {sorted(keys.symmetric_difference(k for k in ours if not k.endswith('.alpha')))[:6]}"
        )
    differences = [abs(mine - their) / abs(their) for mine, their in zip(losses, their_losses)]
    apart = norm(ours[key] - theirs[key] for key in keys)
    return {
        "loss_rel": max(differences),
        "weights_rel": apart / norm(theirs[key] for key in keys),
        "change_rel": apart / norm(theirs[key] - start[key] for key in keys),
        "moved": norm(theirs[key] - start[key] for key in keys) / norm(start[key] for key in keys),
        "losses": list(zip(losses, their_losses)),
    }


def norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))

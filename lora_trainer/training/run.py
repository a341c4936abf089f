"""A run on disk: its record says whose files lie there, so that it can go on and nothing else is written over."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.files import write_text
from lora_trainer.inspecting import flux
from lora_trainer.inspecting.header import read_header
from lora_trainer.inspecting.identify import folder_tensors
from lora_trainer.training.base_hash import Identity, identity, is_same
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.ladder import adjusted
from lora_trainer.training.plan import Plan, draw_seed, fingerprint, make_plan
from lora_trainer.training.saves import Outputs, check_writable, choose_outputs, names, of_job
from lora_trainer.training.state import State, load_state

LORA_PARTS = (
    *("transformer_blocks.", ".self_attn.", "_model.encoder.layers.", "resblocks."),
    *("double_blocks.", "single_blocks."),
)


@dataclass(frozen=True)
class Record:
    """Written before the first step and kept: `fingerprint` names the run, `seed` is the one it drew.

    `adjustments`: the savings (`fit.Saving.facts`) that it took where memory was short, in their order.
    """

    fingerprint: str
    seed: int
    started_at: float
    finished: bool = False
    base: Identity | None = None
    adjustments: tuple[dict[str, Any], ...] = ()


@dataclass
class Run:
    """`state` is that of an interrupted run that goes on, else None. `writes`: it has begun, in the main process."""

    plan: Plan
    outputs: Outputs
    record: Record
    state: State | None
    writes: bool = False

    @property
    def step(self) -> int:
        """The step that the run goes on after."""
        return self.state.step if self.state else 0

    def summary(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "name": self.outputs.name,
            "base": plan.base.path.name,
            "family": plan.base.family,
            "pictures": len(plan.pictures),
            "steps": plan.total_steps,
            "epochs": plan.epochs,
            "step": self.step,
            "seed": plan.seed,
        }

    def begin(self, accelerator: Accelerator) -> None:
        """Writes the record, and drops the state of an earlier run. TrainingFailed if the disk is full."""
        self.writes = accelerator.is_main_process
        if self.writes:
            try:
                if self.state is None:
                    self.outputs.state.unlink(missing_ok=True)
                write_record(self.outputs, self.record)
            except OSError as error:
                cause = f"The run's folder {self.outputs.run_folder.name} can't be written ({error.strerror or error})."
                raise TrainingFailed(cause, "Free some space, or choose another output_folder.") from error
        accelerator.wait_for_everyone()

    def adjust(self, setting: str, value: Any, facts: dict[str, Any]) -> None:
        """Another value of a setting from here on, after an interruption also. `facts`: a saving's.

        A disk that does not take the record ends nothing: without it, memory would run short once more.
        """
        self.plan = replace(self.plan, config=replace(self.plan.config, **{setting: value}))
        self.record = replace(self.record, adjustments=(*self.record.adjustments, facts))
        if self.writes:
            with suppress(OSError):
                write_record(self.outputs, self.record)

    def note(self, **changes: Any) -> None:
        """Writes more into the record. OSError if the disk does not take it."""
        self.record = replace(self.record, **changes)
        write_record(self.outputs, self.record)

    def know_base(self, digest: str) -> None:
        """Keeps the base's SHA-256, so that a base that was only copied is known again."""
        if digest and self.record.base and digest != self.record.base.sha256:
            self.note(base=replace(self.record.base, sha256=digest))


def open_run(config: Config, accelerator: Accelerator, fresh: bool = False, job: Path | None = None) -> Run:
    """The run of this config: an interrupted one that goes on, or a new one. Writes nothing: `begin` does.

    `job` is the folder of a run that keeps everything there. BadInput for whatever is wrong with settings, base,
    pictures, name or output folder; TrainingFailed where the base is not the one that the run began with.
    """
    plan = make_plan(config, accelerator.num_processes, _common_seed(config))
    mark, base = fingerprint(plan), identity(plan.base.path)
    if not fresh and (found := interrupted(plan, mark, job)):
        outputs, record = found
        state = load_state(outputs.state)
        plan = replace(plan, seed=record.seed, config=adjusted(plan.config, record.adjustments))
        return Run(plan, outputs, record if state else replace(record, base=base), state)
    outputs = new_outputs(plan, fresh, job, accelerator.is_main_process)
    return Run(plan, outputs, Record(mark, plan.seed, time.time(), base=base), None)


def interrupted(plan: Plan, mark: str, job: Path | None = None) -> tuple[Outputs, Record] | None:
    """The interrupted run that this plan goes on with: of the same name, or of a numbered one where that is asked for.

    BadInput where the name, or the job, belongs to an interrupted run of another fingerprint than `mark`;
    TrainingFailed where it goes on, and only the base's content has changed.
    """
    if job:
        return _interrupted_job(plan, mark, of_job(job, str(plan.config.output_name)))
    config = plan.config
    for outputs in names(Path(config.output_folder), str(config.output_name)):
        record = unfinished(outputs)
        if record and record.fingerprint == mark:
            _check_base(plan, outputs, record)
            return outputs, record
        if config.overwrite == "number" and outputs.taken:
            continue
        if record:
            problem = "an interrupted run of this name is there, with other settings, base or pictures"
            remedy = "Choose another name, restore its settings to go on with it, or use --fresh to write over it."
            raise BadInput(Problem("output_name", outputs.name, problem, remedy))
        break
    return None


def _interrupted_job(plan: Plan, mark: str, outputs: Outputs) -> tuple[Outputs, Record] | None:
    record = unfinished(outputs)
    if record:
        _check_base(plan, outputs, record)
    if record and record.fingerprint != mark and outputs.state.is_file():
        problem = "was trained so far with other pictures or captions than there are"
        remedy = "Put them back as they were to go on, or begin the job anew."
        raise BadInput(Problem("subsets", None, problem, remedy))
    return (outputs, record) if record and record.fingerprint == mark else None


def _check_base(plan: Plan, outputs: Outputs, record: Record) -> None:
    """TrainingFailed where there is a state to go on from, and the base of the same name is another by now."""
    base, path = record.base, plan.base.path
    if base and base.name == path.name and outputs.state.is_file() and not is_same(base, path):
        raise TrainingFailed(
            f"The base model {path.name} is not the file that this run began with.",
            "Put that file back to go on, or begin anew with the one that is there.",
            "base_changed",
        )


def new_outputs(plan: Plan, fresh: bool = False, job: Path | None = None, writes: bool = True) -> Outputs:
    """Where a new run of this plan may write. BadInput if its name is taken, or the disk is full or read-only.

    `fresh`: the files of an interrupted run of this name are its to write over. `writes`: whether this process is the
    one that will; several that tried the disk at the same time would stand in each other's way.
    """
    config = plan.config
    if job:
        if writes:
            check_writable(Path(config.output_folder), 0)
            check_writable(job, space_needed(plan))
        return of_job(job, str(config.output_name))
    outputs = Outputs(Path(config.output_folder), str(config.output_name))
    if not (fresh and unfinished(outputs)):
        outputs = choose_outputs(outputs.folder, outputs.name, config.overwrite)
    if writes:
        check_writable(outputs.folder, space_needed(plan))
    return outputs


def unfinished(outputs: Outputs) -> Record | None:
    """The record of an interrupted run of this name, which can go on."""
    record = read_record(outputs)
    return None if record is None or record.finished else record


def read_record(outputs: Outputs) -> Record | None:
    path = outputs.run_folder / "run.json"
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        base = told.pop("base", None)
        return Record(**told, base=Identity(**base) if base else None)
    except (ValueError, TypeError) as error:
        raise BadInput(
            Problem("output_name", outputs.name, f"its {path.name} can't be read", "Delete it; the LoRAs stay.")
        ) from error


def write_record(outputs: Outputs, record: Record) -> None:
    write_text(outputs.run_folder / "run.json", json.dumps(asdict(record), indent=1))


def space_needed(plan: Plan) -> int:
    """About how many bytes the run's saves and its state take: enough to catch a full disk before hours of training."""
    config = plan.config
    weights = config.rank * weights_per_rank(plan) * (2 if config.kind == "LoHa" else 1)  # LoHa: two pairs of factors
    bytes_each = weights * (4 if config.save_precision == "fp32" else 2)
    saves = 1 + (plan.epochs - 1) // max(1, config.save_every_epochs)
    if config.save_every_steps:
        saves += plan.total_steps // config.save_every_steps
    if config.keep_last:
        saves = min(saves, config.keep_last + 1)
    # The state holds the weights and an optimizer's two moments in float32, beside its predecessor while it is written.
    state = 0 if config.save_state == "off" else 2 * 3 * 4 * weights
    return saves * bytes_each + state + 2**20


def weights_per_rank(plan: Plan) -> int:
    """Inputs and outputs of every layer that may get a LoRA, added up from the shapes in the base's header."""
    base = plan.base
    tensors = folder_tensors(base.path, "unet") if base.path.is_dir() else read_header(base.path).tensors
    if clip := base.parts.get("clip_l"):
        tensors = {**flux.tensors_of("transformer", tensors), **flux.tensors_of("clip_l", read_header(clip).tensors)}
    names = [name for name in tensors if name.endswith("weight") and any(part in name for part in LORA_PARTS)]
    shapes = [flux.shape_of(name, tensors) for name in names]
    return sum(shape[0] + shape[1] for shape in shapes if len(shape) >= 2)


def _common_seed(config: Config) -> int:
    """One seed for all processes: that of the main one."""
    box = [draw_seed(config)]
    broadcast_object_list(box)
    return box[0]

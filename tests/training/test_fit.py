"""Runs that find too little memory: what they do about it, and that the LoRA is the one of a run that had enough."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config, Problem, dump_toml
from lora_trainer.config.settings import SAVINGS
from lora_trainer.jobs.stops import Stop
from lora_trainer.packages import environment_for_child
from lora_trainer.training import fit
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.ladder import RUNGS, adjusted, next_saving
from lora_trainer.training.learning import Learner
from lora_trainer.training.loop import train
from lora_trainer.training.memory import can_refuse, is_out_of_memory
from lora_trainer.training.models import Models
from lora_trainer.training.plan import Plan, fingerprint, make_plan
from tests.training.heard import Heard

ConfigOf = Callable[..., Config]
Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB."


class Listener(Heard):
    @property
    def changes(self) -> list[tuple[str, Any, Any]]:
        return [(each["setting"], each["from"], each["to"]) for each in self.of("adjusted")]

    @property
    def steps(self) -> list[int]:
        return [facts["step"] for facts in self.of("progress")]


def trained(config: Config, **options: Any) -> tuple[Tensors, Listener]:
    listener = Listener()
    outcome = train(config, listener, **options)
    assert outcome.lora is not None
    return load_file(outcome.lora), listener


def stopped_after_one_step(config: Config) -> Listener:
    stop, listener = Stop(), Listener()

    def listen(kind: str, /, **facts: Any) -> None:
        listener(kind, **facts)
        if kind == "progress":
            stop.ask()

    assert train(config, listen, stop).lora is None
    return listener


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def difference(left: Tensors, right: Tensors) -> float:
    """Of all weights together, as a share of what they are: Adam makes much of a small gradient's rounding."""
    apart = sum(float((left[key] - right[key]).square().sum()) for key in right)
    return (apart / sum(float(right[key].square().sum()) for key in right)) ** 0.5


def run_short(monkeypatch: pytest.MonkeyPatch, needs: Callable[[Models, int], bool]) -> None:
    """Lets memory run short wherever `needs(models, pictures at once)` says so."""
    real = Models.denoise

    def denoise(self: Models, noisy: torch.Tensor, *others: Any) -> torch.Tensor:
        if needs(self, len(noisy)):
            raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)
        return real(self, noisy, *others)

    monkeypatch.setattr(Models, "denoise", denoise)


# ---- errors


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(OUT_OF_MEMORY),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.80 GB, other allocations: 264.88 MB, max: 9 GB)."),
        RuntimeError("Invalid buffer size: 16.00 GB"),
        RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.98 GiB total capacity)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("could not create a primitive"),
        RuntimeError("std::bad_alloc"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: str(error)[:40],
)
def test_errors_that_say_that_memory_ran_short(error: Exception) -> None:
    assert is_out_of_memory(error)
    try:
        raise BadInput(Problem("optimizer", "Lion", "refuses it", "Choose another.")) from error
    except BadInput as told:
        assert is_out_of_memory(told)


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        OSError(28, "No space left on device"),
        ValueError("out of memory"),
        TrainingFailed("The loss became nan.", "Lower the learning rate."),
    ],
)
def test_errors_that_say_something_else(error: Exception | None) -> None:
    assert not is_out_of_memory(error)


def test_what_really_is_raised_here() -> None:
    for take in (lambda: torch.empty(2**50), lambda: np.ones(2**50), lambda: bytearray(2**60)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            take()
        assert is_out_of_memory(caught.value)


# ---- the ladder


def walked(plan: Plan, device: torch.device = CPU, loading: bool = False) -> list[tuple[str, Any]]:
    """Every saving that is left, one after the other."""
    taken = []
    while saving := next_saving(plan, device, loading):
        assert getattr(plan.config, saving.setting) == saving.before and saving.sentence.endswith(".")
        plan = replace(plan, config=replace(plan.config, **{saving.setting: saving.after}))
        taken.append((saving.setting, saving.after))
    return taken


def test_rungs_are_taken_in_the_order_of_the_setting(config_of: ConfigOf) -> None:
    assert tuple(rung.name for rung in RUNGS) == SAVINGS
    plan = make_plan(config_of(batch_size=4, train="unet", shuffle_tags=False, cache_text="off"))
    assert walked(plan) == [
        ("gradient_checkpointing", "on"),
        ("micro_batch", 2),
        ("micro_batch", 1),
        ("cache_text", "memory"),
        ("optimizer", "AdamW8bit"),
        ("base_precision", "fp8"),
    ]
    assert walked(plan, loading=True) == [("cache_text", "memory"), ("base_precision", "fp8")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gradient_checkpointing": "on", "batch_size": 1, "optimizer": "Prodigy"}, ["base_precision"]),
        ({"gradient_checkpointing": "on", "batch_size": 3, "micro_batch": 1, "base_precision": "fp8"}, ["optimizer"]),
        ({"gradient_checkpointing": "on", "batch_size": 100, "base_precision": "fp8", "optimizer": "Lion"},
         ["micro_batch", "micro_batch", "optimizer"]),  # there are four pictures
        ({"gradient_checkpointing": "on", "batch_size": 1, "optimizer_args": ("amsgrad=True", "foreach=True")},
         ["base_precision"]),  # an argument that the 8-bit optimizer does not have
        ({"train": "unet", "shuffle_tags": True, "cache_text": "off", "savings": ("cached_text",)}, []),
        ({"train": "both", "shuffle_tags": False, "cache_text": "off", "savings": ("cached_text",)}, []),
        ({"savings": ()}, []),
        ({"savings": ("fp8", "checkpointing")}, ["gradient_checkpointing", "base_precision"]),
    ],
)  # fmt: skip
def test_a_rung_is_taken_only_where_something_is_left(
    config_of: ConfigOf, changes: dict[str, Any], expected: list[str]
) -> None:
    assert [setting for setting, _ in walked(make_plan(config_of(**changes)))] == expected


def test_what_a_device_cannot_do_is_no_rung(config_of: ConfigOf) -> None:
    plan = make_plan(config_of(batch_size=1, savings=("fp8",)))
    assert walked(plan, torch.device("mps")) == []


@given(st.integers(1, 300), st.integers(0, 300))
def test_the_pictures_at_once_are_halved_to_one(widest: int, micro_batch: int) -> None:
    rung = next(rung for rung in RUNGS if rung.name == "micro_batch")
    seen = [min(micro_batch or widest, widest)]
    while True:
        config = SimpleNamespace(micro_batch=micro_batch)
        after = rung.after(SimpleNamespace(config=config, batches=lambda epoch: [range(widest)]), CPU)  # type: ignore
        if after is None:
            break
        micro_batch = after
        seen.append(after)
    assert seen[-1] == 1
    assert all(before / 2 <= after <= before / 2 + 0.5 for before, after in zip(seen, seen[1:]))


def test_what_only_costs_memory_or_time_is_no_other_run(config_of: ConfigOf) -> None:
    mark = fingerprint(make_plan(config_of()))
    for changes in ({"micro_batch": 1}, {"savings": ()}, {"gradient_checkpointing": "on"}, {"comment": "x"}):
        assert fingerprint(make_plan(config_of(**changes))) == mark
    for changes in ({"base_precision": "fp8"}, {"optimizer": "Lion"}, {"rank": 5}, {"batch_size": 3}):
        assert fingerprint(make_plan(config_of(**changes))) != mark


def test_a_run_goes_on_with_its_savings_unless_the_user_changed_the_setting(config_of: ConfigOf) -> None:
    facts: list[dict[str, Any]] = [
        {"name": "micro_batch", "setting": "micro_batch", "from": 0, "to": 2, "sentence": ""},
        {"name": "micro_batch", "setting": "micro_batch", "from": 2, "to": 1, "sentence": ""},
        {"name": "fp8", "setting": "base_precision", "from": "auto", "to": "fp8", "sentence": ""},
    ]
    config = config_of()
    assert adjusted(config, facts) == replace(config, micro_batch=1, base_precision="fp8")
    chosen = replace(config, micro_batch=4, savings=("micro_batch",))
    assert adjusted(chosen, facts) == chosen


# ---- runs


def test_a_batch_that_is_too_large_is_computed_in_parts(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the second step on; each step is taken once, and the weights are those of whole batches."""
    options = {"batch_size": 4, "epochs": 3, "dropout": 0.2}
    whole, _ = trained(config_of(output_name="whole", **options))
    calls = iter(range(100))
    run_short(monkeypatch, lambda models, pictures: pictures > 1 and next(calls) >= 1)
    found, listener = trained(config_of(**options))
    assert listener.changes == [("gradient_checkpointing", "auto", "on"), ("micro_batch", 0, 2), ("micro_batch", 2, 1)]
    assert listener.steps == [1, 2, 3] and difference(found, whole) < 1e-4
    assert "pictures are computed 2 at a time" in listener.of("adjusted")[1]["sentence"]
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        assert file.metadata()["ss_gradient_checkpointing"] == "True"


def test_a_run_that_goes_on_begins_with_its_savings(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = trained(config_of(output_name="whole"))
    with monkeypatch.context() as patch:
        run_short(patch, lambda models, pictures: pictures > 1)
        assert len(stopped_after_one_step(config_of()).changes) == 2
    record = json.loads((tmp_path / "out" / "blob-run" / "run.json").read_text(encoding="utf-8"))
    assert [each["setting"] for each in record["adjustments"]] == ["gradient_checkpointing", "micro_batch"]
    run_short(monkeypatch, lambda models, pictures: pictures > 1)
    found, listener = trained(config_of())
    assert listener.changes == [] and listener.steps == [2, 3, 4, 5, 6]
    assert difference(found, whole) < 1e-4


def test_every_rung_is_walked_and_the_run_ends(config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its third step memory runs short until the last rung is taken."""
    options = {"train": "unet", "shuffle_tags": False, "cache_text": "off"}
    whole, plain = trained(config_of(output_name="whole", **options))
    steps = iter(range(100))

    def needs(models: Models, pictures: int) -> bool:
        fp8 = models.facts["ss_fp8_base"] == "True"
        return not fp8 and next(steps) >= 2

    run_short(monkeypatch, needs)
    found, listener = trained(config_of(**options))
    changed = [setting for setting, _, _ in listener.changes]
    assert changed == ["gradient_checkpointing", "micro_batch", "cache_text", "optimizer", "base_precision"]
    assert listener.steps == [1, 2, 3, 4, 5, 6]
    rates = [facts["rates"] for facts in listener.of("progress")]
    assert rates == [facts["rates"] for facts in plain.of("progress")]
    losses, expected = ([facts["loss"] for facts in each.of("progress")] for each in (listener, plain))
    assert losses == pytest.approx(expected, rel=0.05) and not same(found, whole)


def test_a_state_of_another_optimizer_gives_the_weights_and_the_place(config_of: ConfigOf, tmp_path: Path) -> None:
    """A run that was killed between taking the 8-bit optimizer and its next save."""
    config = config_of(train="unet", epochs=1)
    plain = trained(replace(config, output_name="plain"))[1].of("progress")
    stopped_after_one_step(config)
    path = tmp_path / "out" / "blob-run" / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    facts = {"name": "optimizer_8bit", "setting": "optimizer", "from": "AdamW", "to": "AdamW8bit", "sentence": "."}
    path.write_text(json.dumps({**record, "adjustments": [facts]}), encoding="utf-8")
    _, listener = trained(config)
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        assert file.metadata()["ss_optimizer"].endswith("AdamW8bit")
    (last,) = listener.of("progress")
    assert last["step"] == 2 and last["rates"] == plain[1]["rates"] and last["loss"] == plain[1]["loss"]


def test_what_is_forbidden_is_not_done(config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_short(monkeypatch, lambda models, pictures: True)
    listener = Listener()
    with pytest.raises(TrainingFailed) as caught:
        train(config_of(savings=("micro_batch",)), listener)
    assert listener.changes == [("micro_batch", 0, 1)]
    said = str(caught.value)
    assert "too little memory" in said and "Tried to allocate 2.00 GiB" in said and "even with micro_batch = 1" in said
    assert "Allow checkpointing and optimizer_8bit and fp8 (the setting savings)" in said
    assert caught.value.reason == "out_of_memory"
    monkeypatch.undo()
    assert trained(config_of(savings=("micro_batch", "fp8")))[1].changes == []  # it goes on, with no other base


def test_other_errors_end_the_run_as_they_are(config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Models, *others: Any) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Models, "denoise", broken)
    listener = Listener()
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(config_of(), listener)
    assert listener.changes == []


@pytest.mark.parametrize(("saved", "saving"), [(2, "checkpointing"), (0, "checkpointing"), (2, "optimizer_8bit")])
def test_where_the_weights_were_half_changed_the_last_state_is_taken(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, saved: int, saving: str
) -> None:
    """Memory runs short within the optimizer's step 4, behind a state of step 2, or behind none."""
    options: dict[str, Any] = {"savings": (saving,), "save_state": "every" if saved else "off"}
    whole, _ = trained(config_of(output_name="whole", **options))
    real, calls = Learner.step, iter(range(100))

    def step(self: Learner) -> None:
        real(self)
        if next(calls) == 3:
            self.whole = False
            raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr(Learner, "step", step)
    found, listener = trained(config_of(**options))
    assert [facts["name"] for facts in listener.of("adjusted")] == [saving]
    assert listener.steps == [1, 2, 3, *range(saved + 1, 7)]
    assert difference(found, whole) < (1e-4 if saving == "checkpointing" else 0.1)


def test_models_that_are_too_large_are_loaded_smaller(config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = fit.load_models, []

    def load_models(plan: Plan, precision: Any, *others: Any) -> Models:
        seen.append(precision.hold)
        if not precision.hold:
            raise MemoryError
        return real(plan, precision, *others)

    monkeypatch.setattr(fit, "load_models", load_models)
    _, listener = trained(config_of(epochs=1))
    assert listener.changes == [("base_precision", "auto", "fp8")] and seen == [None, "fp8"]


# ---- two steps beforehand


@pytest.mark.parametrize("optimizer", ["DAdaptAdam", "ScheduleFreeAdamW"])
def test_steps_tried_beforehand_leave_nothing(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    options = {"optimizer": optimizer, "learning_rate": 1.0 if optimizer == "DAdaptAdam" else 1e-3, "dropout": 0.1}
    options |= {"train": "unet", "epochs": 1}
    plain, _ = trained(config_of(output_name="plain", **options))
    monkeypatch.setattr(fit, "can_refuse", lambda device: True)
    found, listener = trained(config_of(**options))
    assert {"name": "memory"} in listener.of("phase")
    assert listener.changes == [] and same(found, plain)
    stopped_after_one_step(config_of(output_name="half", **options))
    assert same(trained(config_of(output_name="half", **options))[0], plain)


def test_savings_are_found_before_the_first_step(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fit, "can_refuse", lambda device: True)
    run_short(monkeypatch, lambda models, pictures: pictures > 1)
    _, listener = trained(config_of(batch_size=4))
    kinds = [kind for kind, _ in listener.events]
    assert listener.changes[-1] == ("micro_batch", 2, 1)
    assert max(at for at, kind in enumerate(kinds) if kind == "adjusted") < kinds.index("progress")
    record = json.loads((tmp_path / "out" / "blob-run" / "run.json").read_text(encoding="utf-8"))
    assert len(record["adjustments"]) == 3


def test_a_cpu_refuses_memory_only_where_it_is_limited() -> None:
    assert can_refuse(torch.device("cuda")) and can_refuse(torch.device("mps"))
    resource = pytest.importorskip("resource")
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    assert can_refuse(CPU) == any(limit != resource.RLIM_INFINITY for limit in limits)


LIMITED = """
import json, re, resource, sys
from dataclasses import replace
from pathlib import Path
from lora_trainer.config import load_toml
from lora_trainer.training.loop import train

def taken():
    return 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

config = load_toml(Path(sys.argv[1]).read_text(encoding="utf-8"))
train(replace(config, resolution=(64, 64), output_name="small"))  # and with it all that is imported on the way
limit, room = taken(), 60 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit + room, limit + room))
try:
    bytearray(2 * room)
    print(json.dumps({"event": "unlimited"}))
except MemoryError:
    train(config, lambda kind, /, **facts: print(json.dumps({"event": kind, **facts})))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's memory cannot be limited like that")
def test_a_process_that_may_not_take_more_memory_finds_what_it_needs(config_of: ConfigOf, tmp_path: Path) -> None:
    """Sixteen pictures at once need more than twice the room that there is."""
    options: dict[str, Any] = {"batch_size": 16, "resolution": (128, 128), "max_steps": 1, "train": "unet"}
    subset = replace(config_of().subsets[0], repeats=4)
    config = config_of(subsets=(subset,), savings=("checkpointing", "micro_batch"), **options)
    (tmp_path / "config.toml").write_text(dump_toml(config), encoding="utf-8")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "config.toml")]
    environment = {**environment_for_child(), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr
    events = [json.loads(line) for line in run.stdout.splitlines()]
    if events[0]["event"] == "unlimited":
        pytest.skip("this system does not hold a process to its limit")
    adjusted = [event["name"] for event in events if event["event"] == "adjusted"]
    assert adjusted[0] == "checkpointing" and {*adjusted[1:]} <= {"micro_batch"}
    _, listener = trained(replace(config, output_name="unlimited"))
    losses = [event["loss"] for event in events if event["event"] == "progress"]
    assert losses == pytest.approx([facts["loss"] for facts in listener.of("progress")], rel=1e-5)

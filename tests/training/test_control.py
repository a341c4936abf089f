"""What a run is asked while it goes: pauses leave nothing behind and change nothing, saves come at once."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_trainer.config import BadInput, Config, dump_toml
from lora_trainer.jobs.stops import Wishes
from lora_trainer.packages import environment_for_child
from lora_trainer.training import measure, offload
from lora_trainer.training.device import choose_precision
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.loop import Outcome, train
from lora_trainer.training.plan import make_plan
from lora_trainer.training.run import Record, Run
from lora_trainer.training.saves import Outputs

ConfigOf = Callable[..., Config]
Told = list[tuple[str, dict[str, Any]]]
PREVIEW = {"preview_size": (64, 64), "preview_steps": 1}


class Person:
    """A control: asks for `plan[event, step]` once that is told (of phases: name and pictures done).

    Each wait in a pause calls the next of `while_paused` for what is asked then; after the last one the pause ends.
    """

    def __init__(self, plan: dict[tuple[str, int], Wishes] | None = None):
        self.plan, self.told, self.asked = plan or {}, Told(), Wishes()
        self.while_paused: list[Callable[[], Wishes]] = []

    def __call__(self, kind: str, /, **facts: Any) -> None:
        self.told.append((kind, facts))
        at = (facts["name"], facts.get("done", 0)) if kind == "phase" else (kind, facts.get("step", 0))
        self.asked = self.plan.pop(at, self.asked)

    def wishes(self) -> Wishes:
        asked, self.asked = self.asked, replace(self.asked, save=False, sample=False)
        return asked

    def wait(self) -> None:
        self.asked = self.while_paused.pop(0)() if self.while_paused else Wishes()

    def run(self, config: Config, **options: Any) -> Outcome:
        return train(config, self, self, **options)

    def kinds(self, *of: str) -> list[str]:
        return [kind for kind, _ in self.told if kind in of]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.told if name == kind]


def weights(outcome: Outcome) -> dict[str, Tensor]:
    assert outcome.lora is not None
    return load_file(outcome.lora)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def living() -> list[Tensor]:
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]


_unbroken: dict[str, Tensor] = {}


@pytest.fixture
def unbroken(config_of: ConfigOf) -> dict[str, Tensor]:
    """The weights of the run that nobody asks for anything."""
    if not _unbroken:
        _unbroken.update(weights(Person().run(config_of(output_name="unbroken"))))
    return _unbroken


def copy_always(content: Tensor, device: torch.device) -> Tensor:
    """As between two devices, where bytes never stay where they are."""
    return content.clone()


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.1},
        {"train": "unet", "optimizer": "ScheduleFreeAdamW"},
        {"train": "unet", "optimizer": "AdamW8bit", "kind": "LoKr", "cache_latents": "off"},
    ],
)
def test_in_a_pause_no_tensor_of_the_run_stays_where_it_was(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    whole = weights(Person().run(config_of(output_name="whole", epochs=2, **options)))
    others = {id(tensor) for tensor in living()}
    before: list[torch.UntypedStorage] = []  # held on to, so that their places are not given to others

    class Watcher(Person):
        def wishes(self) -> Wishes:
            wishes = super().wishes()
            if wishes.paused:
                before.extend(tensor.untyped_storage() for tensor in living() if id(tensor) not in others)
            return wishes

    person = Watcher({("progress", step): Wishes(paused=True) for step in (1, 3)})
    stayed: list[Tensor] = []

    def look() -> Wishes:
        places = {storage.data_ptr() for storage in before if storage.nbytes()}
        now = [tensor for tensor in living() if id(tensor) not in others]
        stayed.extend(tensor for tensor in now if tensor.untyped_storage().data_ptr() in places)
        return Wishes()

    person.while_paused = [look, look]
    monkeypatch.setattr(offload, "copied", copy_always)
    paused = weights(person.run(config_of(epochs=2, **options)))
    assert len(before) > 100 and not person.while_paused
    assert not [(tensor.shape, tensor.dtype) for tensor in stayed]
    assert person.kinds("paused", "resumed") == ["paused", "resumed"] * 2
    assert same(whole, paused)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte is copied in a pause, and the first try to come back finds no memory."""
    real, calls = offload.move, itertools.count(1)

    def move(tensors: Sequence[Tensor], device: torch.device) -> None:
        if next(calls) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        real(tensors, device)

    monkeypatch.setattr(offload, "copied", copy_always)
    monkeypatch.setattr(offload, "move", move)


def test_what_is_asked_in_a_pause(
    config_of: ConfigOf, unbroken: dict[str, Tensor], tmp_path: Path, refused: None
) -> None:
    """A save comes at once, a preview after the pause, and the pause lasts until others have left the memory."""
    person = Person({("progress", 2): Wishes(paused=True), ("progress", 4): Wishes(paused=True)})
    while_paused = [Wishes(paused=True, save=True, sample=True), Wishes(), Wishes(), Wishes(paused=True, stop=True)]
    person.while_paused = [lambda wishes=wishes: wishes for wishes in while_paused]  # type: ignore[misc]
    assert person.run(config_of(**PREVIEW)).lora is None
    of_epoch, in_pause = ["saved"], ["paused", "saved", "warning", "resumed", "sample"]
    kinds = person.kinds("paused", "warning", "resumed", "saved", "sample", "stopped")
    assert kinds[kinds.index("saved") :] == [*of_epoch, *in_pause, *of_epoch, "paused", "stopped"]
    assert "Others still use" in person.of("warning")[-1]["message"]
    assert (tmp_path / "out" / "blob-step00000002.safetensors").is_file()
    (sample,) = person.of("sample")
    assert sample["step"] == 3 and Path(sample["path"]).name.startswith("step00000003-00-")
    again = Person()
    assert same(weights(again.run(config_of(**PREVIEW))), unbroken)
    assert again.of("progress")[0]["step"] == 5


def test_pauses_and_a_stop_while_texts_and_pictures_are_encoded(
    config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop there leaves nothing behind; what was asked before the first step is done after it."""
    monkeypatch.setattr(offload, "copied", copy_always)
    options: dict[str, Any] = {"train": "unet", "shuffle_tags": False, "cache_latents": "disk"}
    whole = weights(Person().run(config_of(output_name="whole", **options)))
    for file in (tmp_path / "set").rglob("*.safetensors"):
        file.unlink()
    stopped = Person({("text encoders", 1): Wishes(paused=True), ("pictures", 2): Wishes(stop=True)})
    assert stopped.run(config_of(**options)).lora is None
    assert stopped.kinds("paused", "resumed", "progress", "stopped") == ["paused", "resumed", "stopped"]
    assert stopped.of("stopped") == [{"step": 0, "steps": 6}]
    assert not (tmp_path / "out" / "blob-run").exists()
    paused = Person({("pictures", 3): Wishes(paused=True, save=True)})
    assert same(weights(paused.run(config_of(**options))), whole)
    assert paused.kinds("paused", "progress", "saved")[:3] == ["paused", "progress", "saved"]
    assert (tmp_path / "out" / "blob-step00000001.safetensors").is_file()


def test_a_job_keeps_everything_in_its_folder_and_knows_its_base(
    config_of: ConfigOf, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "ENOUGH", 2)
    job, own = tmp_path / "jobs" / "1", Path(shutil.copy(base, tmp_path / "base.safetensors"))
    config = config_of(base_model=str(own), overwrite="number", **PREVIEW)
    first = Person({("progress", 2): Wishes(stop=True), ("progress", 1): Wishes(sample=True)})
    first.run(config, run_folder=job)
    assert sorted(path.name for path in job.rglob("*") if path.is_file()) == sorted(
        ["run.json", "state.bin", "blob-000001.safetensors", Path(first.of("sample")[0]["path"]).name]
    )
    assert not (tmp_path / "out").exists()
    os.utime(own, (1, 1))
    second = Person({("progress", 3): Wishes(stop=True)})
    second.run(config, run_folder=job)  # the same content, as a copy has it, is the same base
    assert [facts["step"] for facts in second.of("progress")] == [3]
    (tmp_path / "set" / "1_blob" / "0.txt").write_text("blob, violet", encoding="utf-8")
    with pytest.raises(BadInput, match="other pictures or captions"):
        train(config, run_folder=job)
    content = bytearray(own.read_bytes())
    content[-1] ^= 1
    own.write_bytes(content)
    with pytest.raises(TrainingFailed, match="not the file that this run began with") as failed:
        train(config, run_folder=job)
    assert failed.value.reason == "base_changed"
    (measured,) = first.of("measured")
    told = {"pixels": 64 * 64 * 2, "family": "sd15", "rank": 4, "optimizer": "AdamW", "base": "base.safetensors"}
    assert told.items() <= measured.items()
    seconds = [facts["seconds"] for facts in first.of("progress")]
    assert measured["seconds_per_step"] == seconds[1] and measured["start_seconds"] > 0 and measured["peak_mb"] > 0


def test_what_a_saving_has_changed_is_measured_anew(config_of: ConfigOf) -> None:
    cpu, told = torch.device("cpu"), Person()
    plan = make_plan(config_of())
    run = Run(plan, Outputs(Path("out"), "blob"), Record("", 0, 0.0), None)
    meter = measure.Meter(run, choose_precision("no", "auto", cpu), cpu, time.monotonic(), told)
    for seconds in (9.0, 9.0, 9.0):
        meter.after_step(seconds, last=False)
    run.plan = replace(plan, config=replace(plan.config, gradient_checkpointing="on"))
    for seconds in (5.0, 1.0, 2.0, 4.0):  # the first of them warms up
        meter.after_step(seconds, last=seconds == 4)
    (facts,) = told.of("measured")
    assert facts["seconds_per_step"] == 2 and facts["checkpointing"] is True


ASKED = """
import os, sys
from pathlib import Path
from lora_trainer.config import load_toml
from lora_trainer.jobs.stops import Wishes
from lora_trainer.training.loop import train

class Asked:
    stop = False
    def wishes(self): return Wishes(self.stop, paused=True) if os.environ["RANK"] == "0" else Wishes()
    def wait(self): self.stop = True

outcome = train(load_toml(Path(sys.argv[1])), control=Asked())
Path(sys.argv[1] + os.environ["RANK"]).write_text(f"{outcome.lora} {outcome.steps}", encoding="utf-8")
"""


def test_all_processes_do_what_the_main_one_is_asked(config_of: ConfigOf, tmp_path: Path) -> None:
    """The main one alone is asked to pause after the first step, and in the pause to stop: both end well."""
    script, config = tmp_path / "asked.py", tmp_path / "config.toml"
    config.write_text(dump_toml(config_of(batch_size=1, epochs=2)), encoding="utf-8")
    script.write_text(ASKED, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29519"]
    environment = {**environment_for_child(), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "USE_LIBUV": "0"}
    run = [*launch, str(script), str(config)]
    done = subprocess.run(run, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert [Path(f"{config}{rank}").read_text(encoding="utf-8") for rank in (0, 1)] == ["None 1"] * 2
    assert (tmp_path / "out" / "blob-run" / "state.bin").is_file()


@given(st.data())
def test_moved_tensors_share_what_they_shared(data: st.DataObject) -> None:
    """Views of common memory, whatever their strides, hold the same numbers afterwards, and still share them."""
    size = data.draw(st.integers(4, 12))
    owner = torch.arange(float(size))
    views = [owner]
    for _ in range(data.draw(st.integers(1, 4))):
        start, step = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, 3))
        views.append(data.draw(st.sampled_from(views))[: size - start : step])
    before, places = [view.tolist() for view in views], owner.untyped_storage()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offload, "copied", copy_always)
        offload.move(data.draw(st.permutations(views)), torch.device("cpu"))
    assert [view.tolist() for view in views] == before
    assert {view.untyped_storage().data_ptr() for view in views} != {places.data_ptr()}
    owner.add_(1)
    assert [view.tolist() for view in views] == [[number + 1 for number in numbers] for numbers in before]


def test_a_device_may_be_named_with_a_number_or_without(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(3.0)
    monkeypatch.setattr(offload, "copied", copy_always)
    places = [tensor.untyped_storage()]  # held on to, so that their places are not given to others
    parked = offload.Parked([tensor], torch.device("cpu", 0))
    places.append(tensor.untyped_storage())
    assert parked.brought_back()
    places.append(tensor.untyped_storage())
    assert len({place.data_ptr() for place in places}) == 3 and tensor.tolist() == [0, 1, 2]


def test_tensors_are_found_wherever_they_are_held() -> None:
    class Slots:
        __slots__ = ("held",)

        def __init__(self, held: Tensor):
            self.held = held

    tensors, gradient = [torch.zeros(1) for _ in range(9)], torch.zeros(1)
    slots = Slots(tensors[0])
    leaf = nn.Parameter(tensors[1])
    leaf.grad = gradient
    closed = tensors[2]
    held: list[Any] = [slots, {"a": (tensors[3], [{"b": tensors[4]}])}, lambda: closed, partial(print, tensors[5])]
    held += [nn.BatchNorm1d(1), leaf, tensors[6][:0], lambda default=tensors[7]: default]
    held.append(held)
    found = {id(tensor) for tensor in offload.tensors_of(held)}
    wanted = [*tensors[:1], leaf, gradient, *tensors[2:8], *held[4].parameters(), *held[4].buffers()]
    assert {id(tensor) for tensor in wanted} <= found and id(tensors[8]) not in found

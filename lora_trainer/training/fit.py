"""Making a run fit into the memory there is.

Where memory runs short, in two steps that are tried before the run or in the run itself, the next rung of the ladder is
taken and the same is tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten
from typing import TypeVar, cast

import torch
from accelerate import Accelerator

from lora_trainer.jobs.events import Report
from lora_trainer.training.device import Precision, precision_of
from lora_trainer.training.ladder import next_saving, too_large, too_little_memory
from lora_trainer.training.learning import Learner, build_learner
from lora_trainer.training.memory import MEMORY_ERRORS, can_refuse, forget_peak, is_out_of_memory, release
from lora_trainer.training.models import Between, Models, load_models
from lora_trainer.training.run import Run
from lora_trainer.training.steps import Steps

Result = TypeVar("Result")

PROBE_STEPS = 2  # the first makes the optimizer's state, the second has it beside the activations


class Fit:
    """Loads a run's models and takes its steps, with as many savings as they need.

    To be called in this order: `load`, `probe`, `build_learner`, `take`. With each saving `run.plan` and the run's
    record change, and what is loaded changes in place. BadInput for a precision that the device does not have.
    """

    steps: Steps

    def __init__(self, run: Run, accelerator: Accelerator, report: Report):
        self._run, self._accelerator, self._report = run, accelerator, report
        self._device = accelerator.device
        self._models: Models | None = None
        self._learner: Learner | None = None
        self.precision = self._chosen_precision()

    def load(self, between: Between) -> Models:
        """As `load_models`, with the savings that can be foreseen. TrainingFailed where memory does not suffice."""
        while too_large(self._run.plan, self._device) and next_saving(self._run.plan, self._device, loading=True):
            self._save("", loading=True)

        def attempt() -> Models:
            return load_models(self._run.plan, self.precision, self._device, self._report, between)

        self._models = self._fitted(attempt, loading=True)
        self.steps = Steps(self._run.plan, self._models, self._accelerator)
        return self._models

    def probe(self) -> None:
        """Tries two steps with the largest batch, where memory can run short. The LoRA's weights are to be set after.

        All processes take the same savings. TrainingFailed where none is left.
        """
        if can_refuse(self._device):
            self._report("phase", name="memory")
            self._fitted(self._try_steps, together=True)
            release(self._device)

    def build_learner(self) -> Learner:
        """The one that `take` steps with."""
        self._learner = self._new_learner()
        return self._learner

    def take(self, step: int) -> float | None:
        """Step `step` (from 0) of the run, and its loss; None where memory ran short while weights were changed.

        The run then has to go on from its last state: the learner remembers nothing any more. TrainingFailed as
        `Steps.take`, and where no saving is left.
        """
        learner = cast(Learner, self._learner)
        loss = self._fitted(lambda: self.steps.take(step, learner) if learner.whole else None)
        if not learner.whole:
            learner.begin_anew(self._new_learner())
        return loss

    def _try_steps(self) -> None:
        cast(Models, self._models).initialise_network()  # with weights of zero only, some optimizers divide by zero
        learner = self._new_learner()
        for _ in range(PROBE_STEPS):
            self.steps.try_largest(learner)

    def _chosen_precision(self) -> Precision:
        return precision_of(self._run.plan, self._device)

    def _new_learner(self) -> Learner:
        return build_learner(self._run.plan, cast(Models, self._models), self.precision.scaled, self._device)

    def _fitted(self, attempt: Callable[[], Result], loading: bool = False, together: bool = False) -> Result:
        """What `attempt` returns, tried again with one saving more as long as memory runs short."""
        result, shortage = None, ""
        while True:
            try:
                if shortage:
                    self._save(shortage, loading)
                result, shortage = attempt(), ""
            except MEMORY_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                shortage = shorten(str(error) or type(error).__name__, 120)
            # Only here, with the error gone, nothing holds any more what the attempt had computed.
            if together:
                shortage = self._anywhere(shortage)
            elif shortage and self._accelerator.num_processes > 1:  # the others wait for this one
                raise too_little_memory(self._run.plan, self._device, shortage, self._run.record.adjustments)
            if not shortage:
                return result  # type: ignore[return-value]

    def _anywhere(self, shortage: str) -> str:
        """Where memory ran short in any process, a shortage in each."""
        if self._accelerator.num_processes == 1:
            return shortage
        short = torch.tensor(float(bool(shortage)), device=self._device)
        elsewhere = "in another process" if self._accelerator.reduce(short, "sum") else ""
        return shortage or elsewhere

    def _save(self, shortage: str, loading: bool) -> None:
        """Takes the next rung: in the plan, in the record, in what is loaded. TrainingFailed where none is left."""
        run, learner = self._run, self._learner
        saving = next_saving(run.plan, self._device, loading)
        if saving is None:
            raise too_little_memory(run.plan, self._device, shortage, run.record.adjustments)
        run.adjust(saving.setting, saving.after, saving.facts())
        self.precision = self._chosen_precision()
        self._report("adjusted", **saving.facts())
        if learner:
            learner.forget_gradients()
        release(self._device)
        forget_peak(self._device)
        if self._models:
            self._models.lighten(run.plan, self.precision)
            self.steps = Steps(run.plan, self._models, self._accelerator)
        if learner and learner.whole and saving.setting == "optimizer":
            learner.exchange_optimizer(self._new_learner())

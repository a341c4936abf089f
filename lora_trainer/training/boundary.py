"""Between two steps, or two pictures that are encoded: where a run hears what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Control, Stop, Wishes
from lora_trainer.training.offload import Parked


class Stopped(Exception):
    """A run was asked to stop before its first step."""


class Boundary:
    """`held` is what has to leave the GPU in a pause. All processes pause and stop together, as the main one is asked.

    What is asked and cannot be done yet is kept: a preview until the pause is over, a save until there is a step.
    """

    def __init__(self, control: Control | None, accelerator: Accelerator, report: Report):
        self._control, self._accelerator, self._report = control or Stop(), accelerator, report
        self._kept = Wishes()

    def wishes(self) -> Wishes:
        """What is to be done now. A pause then begins by `pause`."""
        wishes, self._kept = self._look(), Wishes()
        return wishes

    def pause(self, *held: object, heed: Callable[[Wishes], None] | None = None) -> Wishes:
        """Waits until the pause is over, with the GPU left to others; returns at once, and leaves it, at a stop.

        `heed` does what can be done in the meantime: a save.
        """
        parked = Parked(held, self._accelerator.device)
        self._report("paused", freed=parked.freed)
        wishes, waited_for = Wishes(paused=True), False
        while not wishes.stop and (wishes.paused or not parked.brought_back()):
            if not wishes.paused and not waited_for:
                waited_for = True
                self._report("warning", message="Others still use the GPU's memory: the run waits until it is free.")
            self._control.wait()
            wishes = self._look()
            if heed:
                heed(wishes)
                self._kept = replace(wishes, save=False)
        if not wishes.stop:
            self._report("resumed")
        return wishes

    def between_pictures(self, *held: object) -> None:
        """Waits out a pause. Raises Stopped."""
        wishes = self._look()
        if wishes.paused and not wishes.stop:
            wishes = self.pause(*held)
        if wishes.stop:
            raise Stopped

    def _look(self) -> Wishes:
        asked = everywhere(self._control.wishes(), self._accelerator)
        self._kept = replace(asked, save=asked.save or self._kept.save, sample=asked.sample or self._kept.sample)
        return self._kept


def everywhere(wishes: Wishes, accelerator: Accelerator) -> Wishes:
    """The main process's wishes, in every process."""
    if accelerator.num_processes == 1:
        return wishes
    flags = torch.tensor(astuple(wishes), dtype=torch.float32, device=accelerator.device)
    return Wishes(*(bool(flag) for flag in broadcast(flags).tolist()))

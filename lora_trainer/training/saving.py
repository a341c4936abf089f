"""What a run leaves on disk as it goes: LoRAs, its newest state, previews."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_trainer.jobs.events import Report
from lora_trainer.jobs.stops import Wishes
from lora_trainer.training.base_hash import BaseHash
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.learning import Learner
from lora_trainer.training.lora_file import save_lora
from lora_trainer.training.metadata import metadata
from lora_trainer.training.models import Models
from lora_trainer.training.previews import Preview, save_preview
from lora_trainer.training.run import Run
from lora_trainer.training.state import State, save_state


class Saver:
    """Knows after each step what is due. Only the main process has one that writes."""

    def __init__(self, run: Run, models: Models, learner: Learner, report: Report):
        self._run, self._models, self._learner, self._report = run, models, learner, report
        self._base_hash = BaseHash(run.plan.base.path)

    def catch_up(self, step: int) -> None:
        """Before the first step of this process: the baseline, or the previews that an interruption cut off."""
        if self._previews_due(step) and not all(path.is_file() for path in self._preview_paths(self._at_epoch(step))):
            self._preview(step)

    def after_step(self, step: int, average: float, wishes: Wishes) -> None:
        """Saves and draws what is due after `step` steps, or wished. TrainingFailed if the disk takes no save."""
        due = self._saves_due(step)
        last, every = step == self._run.plan.total_steps, self._run.plan.config.save_state == "every"
        with told_as_failure(step):
            for path in due:
                self._save(path, step)
            if due and every and not last and not wishes.stop and not wishes.save:
                self._save_state(step, average)
            if last:
                self._finish(step, average)
        self.heed(step, average, wishes)
        if self._previews_due(step):
            self._preview(step)
        elif wishes.sample:
            self._preview(step, f"step{step:08d}")

    def heed(self, step: int, average: float, wishes: Wishes) -> None:
        """The save that is wished, and what a stop leaves to go on from. TrainingFailed as `after_step`."""
        path = self._run.outputs.after_step(step)
        with told_as_failure(step):
            if wishes.save and path not in self._saves_due(step):
                self._save(path, step)
            if wishes.save or wishes.stop:
                self._save_state(step, average)

    def _epoch(self, step: int) -> int:
        """The epoch that `step` ends or lies in; 0 before the first step."""
        return -(-step // self._run.plan.steps_per_epoch)

    def _at_epoch(self, step: int) -> str:
        return f"epoch{self._epoch(step):06d}"

    def _ends_epoch(self, step: int) -> bool:
        return step % self._run.plan.steps_per_epoch == 0

    def _saves_due(self, step: int) -> list[Path]:
        config, outputs = self._run.plan.config, self._run.outputs
        if step == self._run.plan.total_steps:
            return [outputs.final]
        paths = []
        if self._ends_epoch(step) and self._epoch(step) % config.save_every_epochs == 0:
            paths.append(outputs.after_epoch(self._epoch(step)))
        if config.save_every_steps and step % config.save_every_steps == 0:
            paths.append(outputs.after_step(step))
        return paths

    def _previews_due(self, step: int) -> bool:
        plan, every = self._run.plan, self._run.plan.config.preview_every_epochs
        if step == 0:
            return plan.config.preview_at_start
        return every > 0 and (step == plan.total_steps or self._ends_epoch(step) and self._epoch(step) % every == 0)

    def _preview_paths(self, when: str) -> list[Path]:
        folder = self._run.outputs.previews
        return [folder / f"{when}-{number:02d}-{each.seed}.png" for number, each in enumerate(self._models.previews)]

    def _preview(self, step: int, when: str = "") -> None:
        """Draws every preview. One that fails is reported, and the run goes on."""
        epoch = self._epoch(step)
        paths = self._preview_paths(when or self._at_epoch(step))
        with self._learner.averaged_weights():
            for number, (preview, path) in enumerate(zip(self._models.previews, paths)):
                try:
                    self._draw(preview, path, epoch, step)
                    self._report("sample", path=str(path), epoch=epoch, step=step, prompt=preview.prompt, number=number)
                except (RuntimeError, ValueError, OSError, ArithmeticError, MemoryError) as error:
                    self._report("warning", message=f"Preview {number + 1} of epoch {epoch} failed ({error}).")
            self._models.pictures.release()

    def _draw(self, preview: Preview, path: Path, epoch: int, step: int) -> None:
        pixels = self._models.draw(preview)
        facts = {"Model": self._run.plan.base.path.stem, "LoRA": self._run.outputs.name, "Epoch": epoch, "Step": step}
        save_preview(path, pixels, preview.infotext(facts))

    def _save(self, path: Path, step: int) -> None:
        plan, epoch = self._run.plan, self._epoch(step)
        with self._learner.averaged_weights():
            tensors = self._models.network.state_dict()
            known = {**self._base_hash(), **self._models.facts, "ss_optimizer": self._learner.optimizer_name}
            save_lora(path, tensors, metadata(self._run, epoch, step, known), plan.config.save_precision)
        self._report("saved", path=str(path), epoch=epoch, step=step)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Keeps the newest `keep_last` of this run's numbered saves; 0 keeps them all."""
        keep = self._run.plan.config.keep_last
        numbered = [path for path in self._run.outputs.existing() if path != self._run.outputs.final]
        if keep:
            for path in sorted(numbered, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
                path.unlink()

    def _save_state(self, step: int, average: float) -> None:
        if self._run.plan.config.save_state == "off":
            return
        self._run.know_base(self._base_hash().get("ss_new_sd_model_hash", ""))
        state = State(step, self._models.network.state_dict(), **self._learner.state(), loss_average=average)
        save_state(self._run.outputs.state, state)

    def _finish(self, step: int, average: float) -> None:
        """A finished run needs no state, unless one was asked for at the end."""
        kept = self._run.plan.config.save_state == "end"
        if kept:
            self._save_state(step, average)
        self._run.note(finished=True)
        if not kept:  # only now: a kill before would leave an unfinished run nothing to go on from
            self._run.outputs.state.unlink(missing_ok=True)


@contextmanager
def told_as_failure(step: int) -> Iterator[None]:
    """What the disk refuses ends the run, with all that was saved before."""
    try:
        yield
    except OSError as error:
        raise TrainingFailed(
            f"The save after step {step} failed: {error.strerror or error}; earlier saves are kept.",
            "Free some space, then train again: the run goes on from its last state.",
        ) from error

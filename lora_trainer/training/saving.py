"""What a run leaves on disk as it goes: LoRAs, its newest state, previews."""

from __future__ import annotations

from pathlib import Path

from lora_trainer.training.base_hash import BaseHash
from lora_trainer.training.events import Report
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

    def after_step(self, step: int, average: float, stopping: bool) -> None:
        """Saves and draws what is due after `step` steps. TrainingFailed if the disk does not take a save."""
        plan, config = self._run.plan, self._run.plan.config
        last = step == plan.total_steps
        epoch, within = divmod(step, plan.steps_per_epoch)
        ended = within == 0 or last
        try:
            due = self._due(step, epoch, within == 0, last)
            for path in due:
                self._save(path, step)
            if stopping or (due and not last and config.save_state == "every"):
                self._save_state(step, average)
            if last:
                self._finish(step, average)
        except OSError as error:
            raise TrainingFailed(
                f"The save after step {step} failed: {error.strerror or error}; earlier saves are kept.",
                "Free some space, then train again: the run goes on from its last state.",
            ) from error
        if ended and config.preview_every_epochs and (epoch % config.preview_every_epochs == 0 or last):
            self.preview(epoch if within == 0 else epoch + 1, step)

    def preview(self, epoch: int, step: int) -> None:
        """Draws every preview. One that fails is reported, and the run goes on."""
        if epoch == 0 and not self._run.plan.config.preview_at_start:
            return
        with self._learner.averaged_weights():
            for number, preview in enumerate(self._models.previews):
                try:
                    self._draw(preview, number, epoch, step)
                except (RuntimeError, ValueError, OSError, ArithmeticError, MemoryError) as error:
                    self._report("warning", message=f"Preview {number + 1} of epoch {epoch} failed ({error}).")
            self._models.pictures.release()

    def _draw(self, preview: Preview, number: int, epoch: int, step: int) -> None:
        path = self._run.outputs.previews / f"epoch{epoch:06d}-{number:02d}-{preview.seed}.png"
        pixels = self._models.draw(preview)
        facts = {"Model": self._run.plan.base.path.stem, "LoRA": self._run.outputs.name, "Epoch": epoch, "Step": step}
        save_preview(path, pixels, preview.infotext(facts))
        self._report("sample", path=str(path), epoch=epoch, step=step, prompt=preview.prompt, number=number)

    def _due(self, step: int, epoch: int, epoch_ended: bool, last: bool) -> list[Path]:
        config, outputs = self._run.plan.config, self._run.outputs
        if last:
            return [outputs.final]
        paths = []
        if epoch_ended and config.save_every_epochs and epoch % config.save_every_epochs == 0:
            paths.append(outputs.after_epoch(epoch))
        if config.save_every_steps and step % config.save_every_steps == 0:
            paths.append(outputs.after_step(step))
        return paths

    def _save(self, path: Path, step: int) -> None:
        plan = self._run.plan
        epoch = -(-step // plan.steps_per_epoch)
        with self._learner.averaged_weights():
            tensors = self._models.network.state_dict()
            save_lora(path, tensors, metadata(self._run, epoch, step, self._base_hash()), plan.config.save_precision)
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
        state = State(step, self._models.network.state_dict(), **self._learner.state(), loss_average=average)
        save_state(self._run.outputs.state, state)

    def _finish(self, step: int, average: float) -> None:
        """A finished run needs no state, unless one was asked for at the end."""
        if self._run.plan.config.save_state == "end":
            self._save_state(step, average)
        else:
            self._run.outputs.state.unlink(missing_ok=True)
        self._run.finish()

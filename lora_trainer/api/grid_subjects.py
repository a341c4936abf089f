"""What a grid can be of: the LoRAs that a job has saved, or one in the host's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.api.answers import problem
from lora_trainer.api.family import with_family
from lora_trainer.api.grids import drawn_with, lora_called, of_kind, prompts_of
from lora_trainer.api.places import Places
from lora_trainer.config import BadInput, Config
from lora_trainer.jobs.checks import MOST_DRAWN, family_of, weight_faults
from lora_trainer.jobs.grids import Grid, GridLora
from lora_trainer.jobs.history import Moment, history
from lora_trainer.jobs.queue import Queue

SIZE = (512, 512)  # where nothing says one


@dataclass(frozen=True)
class Subject:
    """`config`: of the training, whose previews say how it is drawn; `prompts`: those of its previews."""

    name: str
    config: Config
    loras: tuple[GridLora, ...]
    prompts: Sequence[str]
    job: int | None = None
    lora: str = ""

    def chosen(self, names: Sequence[Any] | None) -> tuple[GridLora, ...]:
        """Its LoRAs of these files' names, or all. BadInput."""
        known = [lora.file for lora in self.loras]
        wanted = known if names is None else names
        if strange := [name for name in wanted if name not in known]:
            raise problem("files", strange[0], "is no LoRA of this job", "Choose from those that it has saved.")
        if not wanted:
            raise problem("files", None, "names no LoRA", "Choose at least one.")
        return tuple(lora for lora in self.loras if lora.file in wanted)

    def grid(
        self, base: str, loras: tuple[GridLora, ...], weights: tuple[float, ...], prompts: tuple[str, ...]
    ) -> Grid:
        """Not yet kept anywhere. `base`: a base model by the host's name for it."""
        config = self.config.for_family(family_of(self.config))
        width, height = config.preview_size or SIZE
        return Grid(
            name=self.name,
            created_at=time.time(),
            base_model=base,
            loras=loras,
            weights=weights,
            prompts=prompts,
            steps=config.preview_steps,
            width=width,
            height=height,
            seed=config.preview_seed,
            job=self.job,
            lora=self.lora,
            **_sampling(config, self.config.clip_skip),
        )


def _sampling(config: Config, clip_skip: int | None) -> dict[str, Any]:
    """How a base of the config's family draws: a Flux by its guidance, in place of CFG and a negative prompt."""
    if config.family == "flux":
        guided = {"cfg_scale": 1.0, "guidance": config.preview_guidance}
        return {"negative_prompt": "", "sampler": "Euler Simple", "clip_skip": None, **guided}
    return {
        "negative_prompt": config.negative_prompt,
        "cfg_scale": config.preview_cfg,
        "sampler": config.preview_sampler,
        "clip_skip": clip_skip,
    }


def of_job(id: int, queue: Queue) -> Subject:
    """All that it has saved. Raises NoSuchJob, and BadInput where its files are damaged."""
    job, config = queue.job(id), with_family(queue.work(id).config)
    made = history(queue.job_folder(id))
    moments = {name: moment for moment in made.moments for name in moment.loras}
    loras = tuple(_lora(file, moments.get(file.name)) for file in queue.loras(id))
    return Subject(job.name, config, loras, made.prompts or prompts_of(config), job=id)


def of_lora(name: str, places: Places) -> Subject:
    """By its path below the host's folder of LoRAs, or its name. Refused (404)."""
    file = lora_called(name, places)
    folder = next(each for each in places.host.lora_folders() if file.is_relative_to(each))
    config = with_family(drawn_with(file, places))
    path = file.relative_to(folder).as_posix()
    return Subject(file.stem, config, (_lora(file, None),), prompts_of(config), lora=path)


def read_prompts(given: Sequence[Any]) -> tuple[str, ...]:
    """BadInput."""
    prompts = of_kind({"prompts": given}, "prompts", "texts", str)
    if len(prompts) > MOST_DRAWN:
        raise problem("prompts", None, f"must be 1 to {MOST_DRAWN}", "Write one prompt on each line.")
    return prompts


def read_weights(given: Sequence[Any]) -> tuple[float, ...]:
    """Each once, and without 0, which is the picture without a LoRA. BadInput."""
    weights = tuple(dict.fromkeys(map(float, of_kind({"weights": given}, "weights", "numbers", int, float))))
    if fault := next(weight_faults(weights), None):
        raise BadInput(fault)
    if weights == (0.0,):
        raise problem("weights", given, "are of the base alone, which is drawn anyway", "Use such as 0.8.")
    return tuple(filter(None, weights))


def _lora(file: Path, moment: Moment | None) -> GridLora:
    epoch, step = (moment.epoch, moment.step) if moment else (0, 0)
    return GridLora(file.name, epoch, step, file.stat().st_mtime_ns)

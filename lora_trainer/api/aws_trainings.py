"""Trainings as AWS's extension asks for them: the parameters are those of sd-scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import Refused, problem
from lora_trainer.api.aws import AwsRoute, last_key, names_in, page_of, required, shaped
from lora_trainer.api.bodies import LARGEST, OBJECT, Body
from lora_trainer.api.places import Places
from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.config.interchange import Report, aws_source, from_sd_scripts, to_sd_scripts
from lora_trainer.dataset.steps import count_steps
from lora_trainer.jobs.job import ACTIVE, UNFINISHED, Job, NoSuchJob
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Prepare, Work

MOST_DELETED = 100
ID = re.compile(r"[a-f0-9-]{36}")
FAMILIES = {"sd_1_5": "sd15", "sd_xl": "sdxl"}
PARAMS = {"training_params": dict, "config_params": dict, "enable_wd14_tagger": bool, "wd14_tagger_params": dict}
TRAINING = ("training_instance_type", "model", "dataset", "fm_type")
# Its clients wait for "Completed" or "Failed", which is what SageMaker calls a job that is over.
STATUSES = {
    "queued": "Pending",
    "paused": "Pending",
    "finished": "Completed",
    "failed": "Failed",
    "stopped": "Stopped",
    "interrupted": "Stopped",
}


@dataclass(frozen=True)
class AwsTrainingRoutes:
    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=AwsRoute)
        router.add_api_route("/trainings", self.create_training, methods=["POST"])
        router.add_api_route("/trainings", self.list_trainings, methods=["GET"])
        router.add_api_route("/trainings", self.delete_trainings, methods=["DELETE"])
        router.add_api_route("/trainings/{id}", self.get_training, methods=["GET"])
        return router

    def create_training(self, body: Body = OBJECT) -> Response:
        """`notices` say what of the parameters is done otherwise here, or not at all."""
        work, report = read_training(body, self.places)
        self._refuse_taken(work.config.output_name)
        job = self.queue.add(work)
        data = {
            "id": id_of(job),
            "status": "Starting",
            "created": str(job.created_at),
            "params": _params(work),
            "input_location": work.config.subsets[0].folder,
            "output_location": job.output_folder,
            "notices": [str(line) for line in (*report.changed, *report.unsupported)],
        }
        return shaped(201, data)

    def list_trainings(self, request: Request) -> Response:
        limit, key = page_of(request)
        jobs = self.queue.jobs(None, limit, _number(key) if key else None)
        trainings = [self._listed(job) for job in jobs if job.kind == "train"]
        following = last_key(id_of(jobs[-1])) if len(jobs) == limit else None
        return shaped(200, {"trainings": trainings, "last_evaluated_key": following})

    def get_training(self, id: str) -> Response:
        job = self._job(id)
        data = {
            "id": id_of(job),
            "job_status": status_of(job),
            "model_id": "kohya",
            "params": self._params_of(job),
            "timestamp": str(job.created_at),
            "train_type": "Stable-diffusion",
            "sagemaker_train_name": f"job-{job.id}",
            "logs": [],
            "checkpoint_id": "",
        }
        return shaped(200, data)

    def delete_trainings(self, body: Body = OBJECT) -> Response:
        """Stops a training that runs, which is then in the list as stopped, and takes all others out of it.

        LoRAs in the WebUI's folder stay. Ids of no training are passed over.
        """
        ids = names_in(body, "training_id_list", MOST_DELETED)
        if bad := [id for id in ids if not ID.fullmatch(id)]:
            raise problem("training_id_list", bad, "holds what is no id of a training", "Use ids from the list.")
        for id in ids:
            try:
                job = self._job(id)
            except Refused:
                continue
            if job.status in ACTIVE:
                self.queue.stop(job.id)
            else:
                self.queue.delete(job.id)
        return Response(status_code=204)

    def _job(self, id: str) -> Job:
        try:
            return self.queue.job(_number(id))
        except (NoSuchJob, BadInput):
            raise Refused(404, f"Job with id {id[:80]} not found") from None

    def _listed(self, job: Job) -> dict[str, Any]:
        return {
            "id": id_of(job),
            "modelName": f"{job.name}.safetensors",
            "status": status_of(job),
            "trainType": "Stable-diffusion",
            "created": str(job.created_at),
            "sagemakerTrainName": f"job-{job.id}",
            "params": self._params_of(job),
        }

    def _params_of(self, job: Job) -> dict[str, Any]:
        try:
            return _params(self.queue.work(job.id))
        except BadInput:  # the job's files are damaged; its row is not
            return {}

    def _refuse_taken(self, name: str | None) -> None:
        unfinished = (job.name for job in self.queue.line() if job.status in UNFINISHED)
        if name in {*(path.stem for path in self.places.loras()), *unfinished}:
            raise Refused(400, f"{name}.safetensors already exists, please use another or rename/delete exists")


def id_of(job: Job) -> str:
    """Its ids have the form of a UUID: the job's number with zeros before it."""
    return str(UUID(int=job.id))


def status_of(job: Job) -> str:
    running = "Training" if job.step else "Starting"
    return STATUSES.get(job.status, running)


def read_training(body: Body, places: Places) -> tuple[Work, Report]:
    """The work that a request names, and what became of its parameters. Raises BadInput, and Refused (400)."""
    asked = required(body, {"lora_train_type": str, "params": dict}, ("lora_train_type", "params"))
    params = required(asked["params"], PARAMS, ("training_params", "config_params"))
    training = required(params["training_params"], dict.fromkeys(TRAINING, str), TRAINING)
    if asked["lora_train_type"].lower() != "kohya":
        given = asked["lora_train_type"]
        raise Refused(400, f"Invalid lora train type: {given[:80]}, the valid value is kohya.")
    training["fm_type"] = _family(training["fm_type"])
    source = aws_source({"params": {**params, "training_params": training}})
    imported = from_sd_scripts(source, count_steps)
    config = _with_places(imported.config, training, places)
    if config.output_name is None:
        raise problem("config_params", None, 'object has missing required properties (["output_name"])', "Give it.")
    tagged = Prepare(config.subsets[0].folder) if source.settings else None
    return places.inside(Work(config, tagged)), imported.report


def _family(name: str) -> str:
    if name.lower() not in FAMILIES:
        raise Refused(400, f"Invalid fm_type {name[:80]}, the valid values are {' and '.join(FAMILIES)}")
    return name.lower()


def _with_places(config: Config, training: Body, places: Places) -> Config:
    """The config with the files of this machine that the names stand for."""
    base, folder = places.base_model(training["model"]), places.folder_of(training["dataset"])
    if not Path(base).is_file():
        raise Refused(400, "Model not found")
    if not Path(folder).is_dir():
        raise Refused(400, "Dataset not found")
    output = next((str(path) for path in places.host.lora_folders()), Config.output_folder)
    return replace(config, base_model=base, subsets=(Subset(folder),), output_folder=output)


def _params(work: Work) -> dict[str, Any]:
    """The request that would ask for this work, with places in place of names as there."""
    config = work.config
    training = {
        "training_instance_type": "local",
        "s3_model_path": config.base_model,
        "s3_data_path": next((subset.folder for subset in config.subsets), ""),
        "fm_type": next((name for name, family in FAMILIES.items() if family == config.family), config.family),
        "s3_toml_path": "",
    }
    told: dict[str, Any] = {"training_params": training, "config_params": to_sd_scripts(config).training}
    if work.prepare and config.tagger != "none":
        thresholds = {"general_threshold": config.tag_threshold, "character_threshold": config.character_threshold}
        told["enable_wd14_tagger"] = True
        told["wd14_tagger_params"] = {name: str(value) for name, value in thresholds.items()}
    return {**told, "training_type": "kohya"}


def _number(id: str) -> int:
    """The job's number. Raises BadInput."""
    try:
        number = UUID(id).int if ID.fullmatch(id) else LARGEST
    except ValueError:
        number = LARGEST
    if number >= LARGEST:
        raise problem("id", id, "is no id of a training", "Use one from the list.")
    return number

"""The routes put on the host's app."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI

from lora_trainer.api.access import PREFIX, Access
from lora_trainer.api.aws_datasets import AwsDatasetRoutes
from lora_trainer.api.aws_trainings import AwsTrainingRoutes
from lora_trainer.api.captions import CaptionRoutes
from lora_trainer.api.comparisons import ComparisonRoutes
from lora_trainer.api.config_text import ConfigTextRoutes
from lora_trainer.api.cuts import CutRoutes
from lora_trainer.api.datasets import DatasetRoutes
from lora_trainer.api.doctor import DoctorRoutes
from lora_trainer.api.drawn_grids import DrawnGridRoutes
from lora_trainer.api.grids import GridRoutes
from lora_trainer.api.history import HistoryRoutes
from lora_trainer.api.imports import ImportRoutes
from lora_trainer.api.jobs import JobRoutes
from lora_trainer.api.loras import LoraRoutes
from lora_trainer.api.models import ModelRoutes
from lora_trainer.api.pictures import PictureRoutes
from lora_trainer.api.places import Places
from lora_trainer.api.settings import SettingRoutes
from lora_trainer.api.setup import SetupRoutes
from lora_trainer.api.tasks import TaskRoutes
from lora_trainer.hosts.host import Host
from lora_trainer.installing import Installation
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.packages import ROOT

DATASETS, MODELS = ROOT / "datasets", ROOT / "models"


def mount(
    app: FastAPI,
    queue: Queue,
    supervisor: Supervisor | None,
    host: Host,
    access: Access,
    datasets: Path = DATASETS,
    models: Path = MODELS,
    installation: Installation | None = None,
) -> None:
    """Puts the routes under /lora-trainer/v1 and /lora-trainer/aws; those of an earlier call are replaced.

    `supervisor` is told of in the list of jobs, and lends the GPU for grids. `datasets` is made when the first dataset
    is; `models` has the taggers. `installation`: of the training packages, where they may be missing.
    """
    anywhere = not (access.listening_remotely or access.allowed_remotely)
    places = Places(host, datasets.absolute(), anywhere, models.absolute())
    ours = (
        SettingRoutes(queue, places),
        ConfigTextRoutes(queue, places),
        JobRoutes(queue, supervisor, places),
        HistoryRoutes(queue),
        ComparisonRoutes(queue, places),
        GridRoutes(queue, places),
        DrawnGridRoutes(queue, supervisor, places),
        LoraRoutes(places),
        DatasetRoutes(queue, places),
        PictureRoutes(places),
        CaptionRoutes(places),
        ImportRoutes(places),
        CutRoutes(places),
        DoctorRoutes(places),
        SetupRoutes(installation),
        TaskRoutes(),
        ModelRoutes(places),
    )
    mounted = APIRouter()
    for routes in ours:
        mounted.include_router(routes.router(), prefix=f"{PREFIX}/v1", dependencies=[Depends(access.check)])
    for shaped in (AwsTrainingRoutes(queue, places), AwsDatasetRoutes(queue, places, access)):
        mounted.include_router(shaped.router(), prefix=f"{PREFIX}/aws", dependencies=[Depends(access.check)])
    kept = [route for route in app.router.routes if not getattr(route, "path", "").startswith(f"{PREFIX}/")]
    app.router.routes[:] = [*kept, *mounted.routes]  # at once, as requests may come meanwhile
    app.openapi_schema = None  # made again with these routes when somebody asks for it

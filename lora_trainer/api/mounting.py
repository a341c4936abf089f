"""The routes put on the host's app."""

from __future__ import annotations

from pathlib import Path

from fastapi import Depends, FastAPI

from lora_trainer.api.access import PREFIX, Access
from lora_trainer.api.aws_datasets import AwsDatasetRoutes
from lora_trainer.api.aws_trainings import AwsTrainingRoutes
from lora_trainer.api.datasets import DatasetRoutes
from lora_trainer.api.jobs import JobRoutes
from lora_trainer.api.library import LibraryRoutes
from lora_trainer.api.places import Places
from lora_trainer.api.settings import SettingRoutes
from lora_trainer.hosts.host import Host
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.supervisor import Supervisor
from lora_trainer.packages import ROOT

DATASETS = ROOT / "datasets"


def mount(
    app: FastAPI,
    queue: Queue,
    supervisor: Supervisor | None,
    host: Host,
    access: Access,
    datasets: Path = DATASETS,
) -> None:
    """Puts the routes under /lora-trainer/v1 and /lora-trainer/aws; those of an earlier call are replaced.

    `supervisor` is only told of, in the list of jobs. `datasets` is made when the first dataset is.
    """
    kept = [route for route in app.router.routes if not getattr(route, "path", "").startswith(f"{PREFIX}/")]
    app.router.routes[:] = kept
    places = Places(host, datasets.absolute(), anywhere=not (access.listening_remotely or access.allowed_remotely))
    ours = (
        SettingRoutes(queue, places),
        JobRoutes(queue, supervisor, places),
        DatasetRoutes(queue, places),
        LibraryRoutes(places),
    )
    for routes in ours:
        app.include_router(routes.router(), prefix=f"{PREFIX}/v1", dependencies=[Depends(access.check)])
    for shaped in (AwsTrainingRoutes(queue, places), AwsDatasetRoutes(queue, places, access)):
        app.include_router(shaped.router(), prefix=f"{PREFIX}/aws", dependencies=[Depends(access.check)])
    app.openapi_schema = None  # made again with these routes when somebody asks for it

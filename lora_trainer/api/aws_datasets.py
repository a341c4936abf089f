"""Datasets as AWS's extension makes them: announced, uploaded a file at a time, then enabled."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from lora_trainer.api.access import PREFIX, Access
from lora_trainer.api.answers import Refused, problem
from lora_trainer.api.aws import AwsRoute, last_key, names_in, page_of, required, shaped
from lora_trainer.api.bodies import OBJECT, Body
from lora_trainer.api.datasets import put_aside
from lora_trainer.api.places import Places
from lora_trainer.api.uploads import is_fit_folder, most_bytes, place_in
from lora_trainer.config import BadInput, Config, Problem
from lora_trainer.dataset.folders import CAPTION_ENDINGS, is_named
from lora_trainer.dataset.listing import listed, with_ending
from lora_trainer.dataset.pictures import PICTURE_ENDINGS
from lora_trainer.dataset.store.index import HOME
from lora_trainer.files import write_text
from lora_trainer.jobs.job import UNFINISHED, NoSuchJob
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Prepare, Work

STATUSES = ("Initialed", "Enabled", "Disabled")
MOST_FILES = 500
MOST_DELETED = 10
UPLOAD_SECONDS = 3600
PREVIEW_SECONDS = 24 * 3600
RESOLUTION = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class About:
    """What such a dataset has besides its pictures; `job` makes it, where it is one that was cut from another."""

    status: str = "Enabled"
    timestamp: float = 0.0
    prefix: str = ""
    description: str = ""
    job: int = 0


@dataclass(frozen=True)
class AwsDatasetRoutes:
    queue: Queue
    places: Places
    access: Access

    def router(self) -> APIRouter:
        router = APIRouter(route_class=AwsRoute)
        router.add_api_route("/datasets", self.create_dataset, methods=["POST"])
        router.add_api_route("/datasets", self.list_datasets, methods=["GET"])
        router.add_api_route("/datasets", self.delete_datasets, methods=["DELETE"])
        router.add_api_route("/datasets/{id}", self.get_dataset, methods=["GET"])
        router.add_api_route("/datasets/{id}", self.update_dataset, methods=["PUT"])
        router.add_api_route("/datasets/{id}/crop", self.crop_dataset, methods=["POST"])
        return router

    def create_dataset(self, request: Request, body: Body = OBJECT) -> Response:
        """Answers with an address for each file, to which its bytes are to be PUT within the hour."""
        kinds = {"dataset_name": str, "content": list, "creator": str, "prefix": str}
        asked = required(body, {**kinds, "params": dict}, kinds)
        described = required(asked.get("params", {}), {"description": str}, ())
        folder = self._free(asked["dataset_name"])
        paths = _announced(folder, asked["prefix"], asked["content"])
        (folder / asked["prefix"]).mkdir(parents=True, exist_ok=True)
        _write(folder, About("Initialed", time.time(), asked["prefix"], described.get("description", "")))
        urls = {path.name: self._url(request, "PUT", folder, path, UPLOAD_SECONDS) for path in paths}
        return shaped(201, {"datasetName": folder.name, "s3PresignUrl": urls})

    def list_datasets(self, request: Request) -> Response:
        limit, key = page_of(request)
        status = request.query_params.get("dataset_status")
        following = [folder for folder in self.places.all_datasets() if not key or folder.name > key]
        shown = [(folder, self._about(folder)) for folder in following[:limit]]
        datasets = [_facts(folder, about) for folder, about in shown if status in (None, about.status)]
        last = last_key(following[limit - 1].name) if len(following) > limit else None
        return shaped(200, {"datasets": datasets, "last_evaluated_key": last})

    def delete_datasets(self, body: Body = OBJECT) -> Response:
        """Moves them to where nothing lists them, as the other API does; names of no dataset are passed over."""
        for name in names_in(body, "dataset_name_list", MOST_DELETED):
            if self.places.has_dataset(name):
                put_aside(self.places.dataset(name), self.queue)
        return Response(status_code=204)

    def get_dataset(self, id: str, request: Request) -> Response:
        folder = self._folder(id)
        about = self._about(folder)
        items = []
        for path in _files(folder):
            item = {
                "key": f"{about.timestamp}_{path.name}",
                "name": path.name,
                "type": "image" if path.suffix.lower() in PICTURE_ENDINGS else "text",
                "preview_url": self._url(request, "GET", folder, path, PREVIEW_SECONDS),
                "dataStatus": about.status,
                "original_file_name": path.name,
            }
            items.append(item)
        facts = {"dataset_name": folder.name, "prefix": about.prefix, "data": items}
        return shaped(200, {**facts, **_facts(folder, about)})

    def update_dataset(self, id: str, body: Body = OBJECT) -> Response:
        status = required(body, {"status": str}, ("status",))["status"]
        folder = self._folder(id)
        if status not in STATUSES:
            raise problem("status", status, "is no status of a dataset", f"Use one of {', '.join(STATUSES)}.")
        _write(folder, replace(self._about(folder), status=status))
        return shaped(200, {"datasetName": folder.name, "status": status})

    def crop_dataset(self, id: str, body: Body = OBJECT) -> Response:
        """A job cuts the pictures around their centre into NAME_512x512, a dataset that is enabled once it is done."""
        text = required(body, {"max_resolution": str}, ("max_resolution",))["max_resolution"]
        size = RESOLUTION.fullmatch(text)
        if size is None:
            raise problem("max_resolution", text, "is no size", "Write it as 512x512.")
        folder = self._folder(id)
        cut = self.places.free_dataset(f"{folder.name}_{text}")
        config = Config(dataset_name=cut.name, crop="centre", crop_size=(int(size[1]), int(size[2])), tagger="none")
        job = self.queue.add(Work(config, Prepare(str(cut), (str(folder),)), train=False))
        _write(cut, replace(self._about(folder), status="Enabled", timestamp=time.time(), job=job.id))
        return shaped(202, {"dataset_name": cut.name})

    def _folder(self, name: str) -> Path:
        if not self.places.has_dataset(name):
            raise Refused(404, f"dataset {name[:80]} is not found")
        return self.places.dataset(name)

    def _free(self, name: str) -> Path:
        """Where to make it; one that was announced and not enabled yet is announced once more."""
        if self.places.has_dataset(name) and self._about(self.places.dataset(name)).status == "Initialed":
            return self.places.dataset(name)
        return self.places.free_dataset(name, "dataset_name")

    def _about(self, folder: Path) -> About:
        about = _read(folder)
        try:
            unfinished = about.job and self.queue.job(about.job).status in UNFINISHED
        except NoSuchJob:
            unfinished = False
        return replace(about, status="Initialed") if unfinished else about

    def _url(self, request: Request, method: str, folder: Path, file: Path, seconds: int) -> str:
        path = f"{PREFIX}/v1/datasets/{folder.name}/files/{file.relative_to(folder).as_posix()}"
        signed = self.access.signed(method, path, seconds)
        return f"{str(request.base_url).rstrip('/')}{quote(path, errors='replace')}?{signed}"


def _announced(folder: Path, prefix: str, content: list[Any]) -> list[Path]:
    """Where the files will be. Raises BadInput with all that cannot be."""
    if prefix and not is_fit_folder(prefix):
        remedy = "Begin it with how often the pictures are seen, as in 10_technic, or leave it empty."
        raise problem("prefix", prefix, "is no name of a folder of pictures", remedy)
    if not 0 < len(content) <= MOST_FILES:
        raise problem("content", None, f"must name 1 to {MOST_FILES} files", "Send several requests for more.")
    paths, faults = [], []
    for number, entry in enumerate(content, 1):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            faults.append(Problem(f"content.{number}", entry, "names no file", 'Give it a "filename".'))
            continue
        try:
            paths.append(place_in(folder, f"{prefix}/{name}" if prefix else name))
            most_bytes(paths[-1])
        except BadInput as error:
            faults += error.problems
    if faults:
        raise BadInput(faults)
    return paths


def _facts(folder: Path, about: About) -> dict[str, Any]:
    place = folder / about.prefix if about.prefix else folder
    facts = {"datasetName": folder.name, "s3": place.as_uri(), "status": about.status, "timestamp": about.timestamp}
    return {**facts, "description": about.description}


def _files(folder: Path) -> list[Path]:
    """The pictures and captions that are trained on, in their order."""
    entries = listed(folder, "dataset")
    named = [entry for entry in entries if entry.is_dir() and is_named(entry.name)]
    inside = [file for place in named for file in listed(place, "dataset")] if named else entries
    return with_ending(inside, (*PICTURE_ENDINGS, *CAPTION_ENDINGS))


def _note(folder: Path) -> Path:
    return folder / HOME / "aws.json"


def _write(folder: Path, about: About) -> None:
    write_text(_note(folder), json.dumps(vars(about), ensure_ascii=False))


def _read(folder: Path) -> About:
    """What was noted of it; a dataset that was made otherwise is enabled."""
    usual = About(timestamp=folder.stat().st_mtime)
    try:
        noted = json.loads(_note(folder).read_text(encoding="utf-8"))
        known = {name: noted[name] for name in vars(usual) if type(noted.get(name)) is type(getattr(usual, name))}
    except (OSError, ValueError, AttributeError):
        return usual
    return replace(usual, **known)

"""Pictures on their way into a set: uploaded file by file to a place of their own, or lying in a folder here.

A dataset takes them in as `import_pictures` does: EXIF turned, captions paired, `10_name` folders kept.
"""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fastapi import APIRouter, Request, Response

from lora_trainer.api.answers import Answer, Refused, Route, problem
from lora_trainer.api.bodies import OBJECT, Body, blocks, fields
from lora_trainer.api.places import Places
from lora_trainer.api.sets import SETS
from lora_trainer.api.tasks import TASKS, Cancelled, Task, started
from lora_trainer.config import SETTINGS, BadInput, Problem
from lora_trainer.dataset.captions import LONGEST_CAPTION
from lora_trainer.dataset.folders import CAPTION_ENDINGS
from lora_trainer.dataset.listing import is_hidden
from lora_trainer.dataset.store.archive import zip_members
from lora_trainer.dataset.store.importing import folder_for, import_pictures
from lora_trainer.dataset.store.names import safe_stem
from lora_trainer.dataset.store.sources import SOURCE_ENDINGS

ARRIVING = ".arriving"  # beside the datasets, in a folder for each upload
DEEPEST = 16
MOST_BYTES = {**dict.fromkeys(SOURCE_ENDINGS, 256 << 20), **dict.fromkeys(CAPTION_ENDINGS, LONGEST_CAPTION)}
MOST_BYTES[".zip"] = 16 << 30
KEPT_SECONDS = 24 * 3600  # an upload that nobody has imported
KINDS = {"upload": str, "folder": str, "repeats": int, "trigger_word": str, "background": str, "caption_extension": str}


@dataclass(frozen=True)
class ImportRoutes:
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/uploads", self.begin_upload, methods=["POST"])
        router.add_api_route("/uploads/{upload}/files/{path:path}", self.put_file, methods=["PUT"])
        router.add_api_route("/uploads/{upload}", self.drop_upload, methods=["DELETE"])
        router.add_api_route("/datasets/{name}/import", self.import_into, methods=["POST"])
        return router

    def begin_upload(self) -> Response:
        """A place for files, which lasts a day: PUT uploads/ID/files/any/name.png, then import it into a dataset."""
        home = self.places.datasets / ARRIVING
        for old in home.iterdir() if home.is_dir() else ():
            if old.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        upload = uuid.uuid4().hex
        (home / upload).mkdir(parents=True)
        return Answer({"upload": upload}, 201)

    async def put_file(self, upload: str, path: str, request: Request) -> Response:
        """One picture, caption or zip, as it is; what is in it is looked at when it is imported."""
        target = self._folder(upload) / _place(path)
        most = _most_bytes(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("xb") as file:
                async for block in blocks(request, most):
                    file.write(block)
        except FileExistsError:
            raise Refused(409, f"A file called {target.name} was sent already.") from None
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return Answer({"file": path}, 201)

    def drop_upload(self, upload: str) -> Response:
        shutil.rmtree(self._folder(upload), ignore_errors=True)
        return Response(status_code=204)

    def import_into(self, name: str, body: Body = OBJECT) -> Response:
        """Imports an upload, or a `folder` of this machine, into a set, which is made where there is none; a task."""
        body = fields(body, KINDS)
        target = self.places.datasets / name if self.places.has_dataset(name) else self.places.free_dataset(name)
        _check(body)
        if "upload" in body:
            upload = self._folder(body["upload"])
            return started(TASKS.start("import", name, lambda task: _import_upload(task, target, upload, body)))
        if not body.get("folder"):
            raise problem("folder", None, "is missing", "Name a folder of pictures, or an upload.")
        source = self.places.source(body["folder"])
        return started(TASKS.start("import", name, lambda task: _import(task, target, [source], body)))

    def _folder(self, upload: str) -> Path:
        folder = self.places.datasets / ARRIVING / upload
        if not re.fullmatch("[0-9a-f]{32}", upload) or not folder.is_dir():
            raise Refused(404, f"There is no upload {upload[:80]!r}. Begin another one.")
        return folder


def _place(path: str) -> Path:
    """Where in an upload the file of a browser's path lies, under names that every file system takes."""
    *folders, name = path.split("/")
    if len(folders) > DEEPEST or not name or any(map(is_hidden, (*folders, name))):
        raise problem("file", path, "is a hidden file, or lies too deep", "Leave it out.")
    stem, dot, ending = name.rpartition(".")
    return Path(*map(safe_stem, folders), f"{safe_stem(stem)}{dot}{safe_stem(ending)}")


def _most_bytes(path: str) -> int:
    """How large the file may be. Raises BadInput where it is nothing that can be imported, by its name."""
    ending = PurePosixPath(path).suffix.lower()
    if ending not in MOST_BYTES:
        remedy = f"Send files that end in {' '.join(MOST_BYTES)}."
        raise problem("file", path, "is neither a picture nor a caption nor a zip", remedy)
    return MOST_BYTES[ending]


def _check(body: Body) -> None:
    """Raises BadInput for values that the settings of these names would not take."""
    faults = []
    for name in ("background", "caption_extension"):
        row = SETTINGS[name]
        if name in body and body[name] not in row.choices:
            faults.append(Problem(name, body[name], "is no choice", f"Use one of {', '.join(map(str, row.choices))}."))
    if not 1 <= body.get("repeats", 1) <= (SETTINGS["repeats"].maximum or 1):
        faults.append(Problem("repeats", body["repeats"], "is out of range", "Use a number such as 10."))
    if faults:
        raise BadInput(faults)


def _import_upload(task: Task, target: Path, upload: Path, body: Body) -> dict[str, Any]:
    """The upload's folder is gone afterwards, unless the disk refused."""
    sources, refused = _sorted_out(sorted(upload.iterdir()))
    if not sources:
        remedy = "Drop pictures, a folder of them or a zip."
        raise BadInput(refused or [Problem("pictures", None, "nothing was sent", remedy)])
    try:
        return _import(task, target, sources, body, refused)
    finally:
        shutil.rmtree(upload, ignore_errors=True)


def _sorted_out(sources: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """The sources without zips that cannot be read, which would keep all the others from being imported."""
    usable, refused = [], []
    for source in sources:
        try:
            if source.is_file() and source.suffix.lower() == ".zip":
                with ExitStack() as stack:
                    zip_members(source, stack)
            usable.append(source)
        except BadInput as error:
            refused += [Problem(source.name, None, each.problem, each.remedy) for each in error.problems]
    return usable, refused


def _import(
    task: Task, target: Path, sources: Sequence[Path], body: Body, refused: Sequence[Problem] = ()
) -> dict[str, Any]:
    folder_name, _ = folder_for(target, body.get("repeats", SETTINGS["repeats"].default), body.get("trigger_word", ""))
    imported = import_pictures(
        target,
        sources,
        folder_name=folder_name,
        background=body.get("background", SETTINGS["background"].default),
        caption_extension=body.get("caption_extension", SETTINGS["caption_extension"].default),
        report=lambda kind, **facts: task.tell(facts["done"], facts["of"], facts["name"]) if "done" in facts else None,
        stop=task,
    )
    if task.wanted and not imported.added:
        raise Cancelled
    notices = [*imported.notices, *SETS.settle(target)]
    left_out = [asdict(problem) for problem in (*refused, *imported.left_out)]
    return {"added": imported.added, "already": imported.already, "left_out": left_out, "notices": notices}

"""The whole form as TOML text and back, starting points to choose from, and configs of other programs."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from fastapi import APIRouter, Response

from lora_trainer.api.answers import Answer, Route, problem
from lora_trainer.api.bodies import FILES, OBJECT, Body, fields
from lora_trainer.api.jobs import read_config
from lora_trainer.api.places import Places, is_fit
from lora_trainer.config import (
    FAMILIES,
    PRESETS,
    SETTINGS,
    BadInput,
    Config,
    Problem,
    check,
    dump_toml,
    idle,
    load_toml,
    notices,
)
from lora_trainer.config.form import as_form, from_form, preset_form
from lora_trainer.config.interchange import import_files, presets_in, start_files, to_sd_scripts
from lora_trainer.config.toml_lines import line_of, lines_of
from lora_trainer.dataset.steps import count_steps
from lora_trainer.inspecting.catalogue import facts_of
from lora_trainer.jobs.queue import Queue
from lora_trainer.jobs.work import Work

PLACE = re.compile(r"line (\d+), column \d+")
COMMENT = re.compile(r"^\s*#", re.MULTILINE)
COMMENTS = Problem("", None, "comments are not kept", "Keep a copy of the text if you need them.")


@dataclass(frozen=True)
class ConfigTextRoutes:
    queue: Queue
    places: Places

    def router(self) -> APIRouter:
        router = APIRouter(route_class=Route)
        router.add_api_route("/config/presets", self.list_presets, methods=["GET"])
        router.add_api_route("/config/text", self.show_text, methods=["POST"])
        router.add_api_route("/config/form", self.show_form, methods=["POST"])
        router.add_api_route("/config/format", self.format_text, methods=["POST"])
        router.add_api_route("/config/import", self.import_config, methods=["POST"])
        router.add_api_route("/config/export", self.export_config, methods=["POST"])
        return router

    def list_presets(self) -> Response:
        """Starting points: the values that each gives a form, and the reason for each of them."""
        return Answer({"presets": list(map(_told, PRESETS))})

    def show_text(self, body: Body = OBJECT) -> Response:
        """A form as TOML; with `whole`, with the paths that the command line needs in place of names."""
        given = fields(body, {"form": dict, "whole": bool}, required=("form",))
        form = self.places.settled_form(given["form"]) if given.get("whole") else given["form"]
        return Answer({"text": dump_toml(from_form(form))})

    def show_form(self, body: Body = OBJECT) -> Response:
        """The form of a `config`, or of a job's by its number, `job`."""
        given = fields(body, {"config": dict, "job": int})
        if "job" in given:
            return Answer({"form": self._form(self.queue.work(given["job"]).config)})
        return Answer({"form": self._form(read_config({"config": {}, **given}, self.places))})

    def format_text(self, body: Body = OBJECT) -> Response:
        """TOML put in order, as the form that it describes, and everything that is wrong with it, by lines of `text`.

        `dataset`: the one that is chosen in the form, which is trained where the text names no pictures.
        A text that can't be read stays as it is, and has no form. A problem that is on no line has the line null.
        """
        given = fields(body, {"text": str, "dataset": str}, required=("text",))
        text = given["text"]
        try:
            config = load_toml(text)
        except BadInput as error:
            return Answer({"text": text, "form": None, "problems": _placed(error.problems, text), "notices": []})
        form, tidy = self._form(config), dump_toml(config)
        faults = self._faults({"dataset_name": given.get("dataset", ""), **form})
        told = () if faults else notices(config)
        told = (*told, COMMENTS) if COMMENT.search(text) else told
        return Answer({"text": tidy, "form": form, "problems": _placed(faults, tidy), "notices": _placed(told, tidy)})

    def import_config(self, body: Body = FILES) -> Response:
        """What files of another trainer describe together; [{name, base64}], of a LoRA its header is enough.

        Where one holds several presets and none is chosen, only their names are answered, `presets`.
        """
        given = fields(body, {"files": list, "preset": str}, required=("files",))
        with tempfile.TemporaryDirectory() as folder:
            paths = [_written(file, Path(folder)) for file in given["files"]]
            if not paths:
                raise problem("files", None, "are none", "Send at least one file.")
            names = [name for path in paths for name in presets_in(path)]
            if names and "preset" not in given:
                return Answer({"presets": names})
            count = count_steps if self.places.anywhere else lambda config: None
            imported = import_files(paths, given.get("preset"), count, anywhere=False)
        config = replace(imported.config, base_model=self._here(imported.config.base_model))
        return Answer({"form": self._form(config), "text": dump_toml(config), "report": imported.report.as_dict()})

    def export_config(self, body: Body = OBJECT) -> Response:
        """A form as the files that sd-scripts is started with, each by its name, and how it is started."""
        given = fields(body, {"form": dict}, required=("form",))
        config = self.places.inside(Work(read_config(given, self.places))).config
        check(config)
        settled = _settled(config)
        exported = to_sd_scripts(settled, count_steps(settled))
        training = Path(f"{config.output_name or config.dataset_name or 'training'}.toml")
        files = {path.name: text for path, text in start_files(exported, training).items()}
        command = f'accelerate launch {exported.script} --config_file "{training}"'
        return Answer({"files": files, "command": command, "report": exported.report.as_dict()})

    def _form(self, config: Config) -> dict[str, Any]:
        return self.places.named_form(as_form(config))

    def _faults(self, form: dict[str, Any]) -> Sequence[Problem]:
        """What stands against the form, as far as it can be told without looking at the pictures."""
        try:
            config = from_form(self.places.settled_form(form))
            return self.queue.check(self.places.inside(Work(config)), look=False)
        except BadInput as error:
            return error.problems

    def _here(self, base_model: str) -> str:
        """The host's own name of a base that another machine had under some path."""
        file = PureWindowsPath(base_model).name
        return next((name for name, path in self.places.host.checkpoints() if file in (name, path.name)), base_model)


def _told(preset: str) -> dict[str, Any]:
    """Without the family, which the base's own file tells: another base could not be chosen any more."""
    form = {name: value for name, value in preset_form(preset).items() if name != "family"}
    reasons = {name: PRESETS[preset].reasons[name] for name in form}
    return {"name": preset, "form": form, "reasons": reasons, "labels": {name: SETTINGS[name].label for name in form}}


def _placed(problems: Sequence[Problem], text: str) -> list[dict[str, Any]]:
    """Each with its line in the text, in the order of the lines; those without one come first."""
    placed = list(_with_lines(problems, text))
    return sorted(placed, key=lambda each: each["line"] or 0)


def _with_lines(problems: Sequence[Problem], text: str) -> Iterator[dict[str, Any]]:
    unread = next((PLACE.match(each.problem) for each in problems if each.setting == "config"), None)
    lines: Mapping[str, int] = {} if unread else lines_of(text)
    for each in problems:
        line = int(unread[1]) if unread else line_of(each.setting, lines)
        yield {"line": line, **asdict(each)}


def _written(file: Any, folder: Path) -> Path:
    """A file of the request, put into the folder."""
    name = file.get("name") if isinstance(file, dict) else None
    if not isinstance(name, str) or not is_fit(name):
        raise problem("files", name, "is no name that every file system takes", "Use a plain name such as config.toml.")
    try:
        (folder / name).write_bytes(base64.b64decode(file.get("base64"), validate=True))
    except (binascii.Error, TypeError, ValueError):
        raise problem("files", name, "is not in base64", "Send its bytes in base64.") from None
    return folder / name


def _settled(config: Config) -> Config:
    """With what base and pictures decide, as far as both are there."""
    base = facts_of(Path(config.base_model))
    if base.get("family") in FAMILIES:
        config = config.for_family(base["family"])
        read = {
            "prediction_type": base["prediction_type"],
            "zero_terminal_snr": "on" if base["zero_terminal_snr"] else "off",
        }
        unknown = [name for name in read if getattr(config, name) == "auto" and name not in idle(config)]
        config = replace(config, **{name: read[name] for name in unknown})
    return replace(config, shuffle_tags=_are_tags(config)) if config.shuffle_tags is None else config


def _are_tags(config: Config) -> bool | None:
    """Whether the captions are lists of tags; None where they can't be read."""
    from lora_trainer.dataset.folders import find_pictures

    try:
        pictures = find_pictures(config.for_family(config.family if config.family in FAMILIES else "sd15")).pictures
    except BadInput:
        return None
    return any(picture.subset.shuffle_tags for picture in pictures)

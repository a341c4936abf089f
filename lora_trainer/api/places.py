"""Where things are that requests call by name: datasets, base models, LoRAs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.api.answers import Refused, problem
from lora_trainer.config import SETTINGS, SUBSET_SETTINGS, BadInput, Problem, file_name_fault
from lora_trainer.config.folder_name import repeats_and_class
from lora_trainer.config.values import fault
from lora_trainer.hosts.host import Host, HostProblem
from lora_trainer.inspecting import identify
from lora_trainer.inspecting.parts import PARTS, Found, find_parts, is_flux
from lora_trainer.jobs.work import Work, paths_of
from lora_trainer.packages import ROOT

_defaults = {name: row.default for name, row in SUBSET_SETTINGS.items()}


@dataclass(frozen=True)
class Places:
    """`datasets` holds a folder for each dataset, `models` the taggers.

    `anywhere`: requests may name any path, as their sender sits here.
    """

    host: Host
    datasets: Path
    anywhere: bool = True
    models: Path = ROOT / "models"

    def inside(self, work: Work) -> Work:
        """The work, unless a path in it leads out of this host's folders and requests come from other machines.

        Raises BadInput with each such path, before anything has been looked for there.
        """
        self._check_inside(paths_of(work))
        return work

    def source(self, path: str, setting: str = "folder") -> Path:
        """A file or folder of this machine, by its absolute path. Raises BadInput as `inside` does."""
        source = Path(path).expanduser()
        if not source.is_absolute():
            raise problem(setting, path, "is no whole path", "Begin it where the disk begins.")
        self._check_inside([(setting, str(source))])
        return source

    def _check_inside(self, named: Iterable[tuple[str, str]]) -> None:
        remedy = "Use a name, or a path in the folders of datasets, checkpoints and LoRAs."
        faults = [
            Problem(setting, path, "lies outside the folders that other machines may use", remedy)
            for setting, path in named
            if not self._may_use(path)
        ]
        if faults:
            raise BadInput(faults)

    def _may_use(self, path: str) -> bool:
        if self.anywhere:
            return True
        checkpoints = (path.parent for _, path in self.host.checkpoints())
        ours = (self.datasets, self.models, *self.host.lora_folders(), *self.host.part_folders(), *checkpoints)
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(os.path.realpath(root)) for root in ours)

    def has_dataset(self, name: str) -> bool:
        return is_fit(name) and (self.datasets / name).is_dir()

    def dataset(self, name: str) -> Path:
        """The folder of a dataset that is there. Refused (404)."""
        if self.has_dataset(name):
            return self.datasets / name
        raise Refused(404, f"There is no dataset {name[:80]!r}. GET /datasets lists those that are there.")

    def free_dataset(self, name: str, setting: str = "name") -> Path:
        """Where a dataset of this name would be made. BadInput where it can't be, Refused (409) where one is."""
        wrong = file_name_fault(name) or (None if is_fit(name) else "begins with a full stop")
        if wrong:
            raise problem(setting, name, wrong, "Use a plain name such as my_pictures.")
        if (self.datasets / name).exists():
            raise Refused(409, f"The dataset {name} already exists. Choose another name.")
        return self.datasets / name

    def all_datasets(self) -> list[Path]:
        """In the order of their names."""
        there = self.datasets.iterdir() if self.datasets.is_dir() else iter(())
        return sorted(path for path in there if path.is_dir() and is_fit(path.name))

    def settled(self, table: dict[str, Any]) -> dict[str, Any]:
        """A config's table with paths in place of the names of a checkpoint and of datasets.

        LoRAs go to the host's folder where no other one is named. A Flux base gets the files of its parts.
        """
        table = dict(table)
        if isinstance(base := table.get("base_model"), str):
            table["base_model"] = self.base_model(base)
            table |= self._parts(table)
        if isinstance(subsets := table.get("subsets"), list):
            table["subsets"] = [self._with_dataset(subset) for subset in subsets]
        if "output_folder" not in table and (folders := self.host.lora_folders()):
            table["output_folder"] = str(folders[0])
        return table

    def settled_form(self, form: dict[str, Any]) -> dict[str, Any]:
        """The same of a form's values. Where it names no folders, the dataset's own are trained.

        If that is one folder, its pictures are repeated as the form says; of several, as each one's name says.
        """
        form = dict(form)
        if not form.get("output_folder"):
            form.pop("output_folder", None)
        name = form.get("dataset_name")
        if not form.get("subsets") and isinstance(name, str) and self.has_dataset(name):
            repeats = str(form.get("repeats", "")).strip()
            sound = repeats.isdecimal() and fault(int(repeats), SETTINGS["repeats"]) is None
            alone = sound and len(trained_folders(self.datasets / name)) < 2
            form["subsets"] = [{"folder": name, **({"repeats": int(repeats)} if alone else {})}]
        return self.settled(form)

    def named_form(self, form: dict[str, Any]) -> dict[str, Any]:
        """The opposite: names in place of paths, of which there are several ways to write one.

        A dataset that is not there is not named, so that the one that is chosen stays.
        """
        form = dict(form)
        form |= {
            part: "" for part, path in self._parts({"base_model": form["base_model"]}).items() if form[part] == path
        }
        by_path = {str(path): name for name, path in self.host.checkpoints()}
        form["base_model"] = by_path.get(form["base_model"], form["base_model"])
        if form["output_folder"] in map(str, self.host.lora_folders()[:1]):
            form["output_folder"] = ""
        form |= self._as_dataset(form["subsets"])
        if not self.has_dataset(form["dataset_name"]):
            del form["dataset_name"]
        return form

    def _as_dataset(self, subsets: list[dict[str, Any]]) -> dict[str, Any]:
        """The values of a form that train these folders, if they are a dataset and nothing else."""
        said = [{key: value for key, value in part.items() if value != _defaults[key]} for part in subsets]
        if len(said) != 1 or said[0].keys() - {"folder", "repeats"}:
            return {}
        folder = Path(said[0].get("folder", ""))
        if folder.parent != self.datasets or not self.has_dataset(folder.name):
            return {}
        alone = trained_folders(folder)
        named = repeats_and_class(alone[0])[0] if len(alone) == 1 else 0
        repeats = said[0].get("repeats", named)
        return {"dataset_name": folder.name, "subsets": [], **({"repeats": str(repeats)} if repeats else {})}

    def base_model(self, name: str) -> str:
        """The path of the checkpoint that the host calls so; what it does not know is taken as a path."""
        found = dict(self.host.checkpoints())
        by_file = {path.name: path for path in found.values()}
        return str(found.get(name) or by_file.get(name) or name)

    def parts(self, base: Path, given: Mapping[str, str | None]) -> Found:
        """The files that a Flux base needs beside it, also from the host's folders. BadInput where it is no base."""
        return find_parts(identify(base), given, self.host.part_folders(), nearby=self.anywhere)

    def _parts(self, table: Mapping[str, Any]) -> dict[str, str]:
        """The files of those parts that the table leaves open, where its base is a Flux."""
        base = Path(table["base_model"])
        lacking = [part for part in PARTS if not table.get(part)]
        if not (lacking and self._may_use(str(base)) and is_flux(base)):
            return {}
        files = self.parts(base, {}).files
        return {part: str(files[part]) for part in lacking if part in files}

    def folder_of(self, name: str) -> str:
        """The folder of the dataset of that name; what is no dataset's name is taken as a path."""
        return str(self.datasets / name) if self.has_dataset(name) else name

    def loras(self) -> Iterator[Path]:
        for folder in self.host.lora_folders():
            yield from sorted(folder.rglob("*.safetensors"))

    def refresh_loras(self) -> None:
        """The host is told that its folders of LoRAs have changed; one that can't look now does so later."""
        with suppress(HostProblem):
            self.host.refresh_loras()

    def _with_dataset(self, subset: Any) -> Any:
        if isinstance(subset, dict) and isinstance(folder := subset.get("folder"), str):
            return {**subset, "folder": self.folder_of(folder)}
        return subset


def trained_folders(dataset: Path) -> list[str]:
    """The dataset's folders whose names say their repeats, such as `10_zdm`."""
    return sorted(path.name for path in dataset.iterdir() if path.is_dir() and repeats_and_class(path.name)[0] > 0)


def is_fit(name: str) -> bool:
    """Whether it is one name, neither a path nor hidden, that every file system takes."""
    return file_name_fault(name) is None and not name.startswith(".")

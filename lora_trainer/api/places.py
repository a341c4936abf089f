"""Where things are that requests call by name: datasets, base models, LoRAs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_trainer.api.answers import Refused, problem
from lora_trainer.config import BadInput, Problem, file_name_fault
from lora_trainer.hosts.host import Host
from lora_trainer.jobs.work import Work, paths_of


@dataclass(frozen=True)
class Places:
    """`datasets` holds a folder for each dataset. `anywhere`: requests may name any path, as their sender sits here."""

    host: Host
    datasets: Path
    anywhere: bool = True

    def inside(self, work: Work) -> Work:
        """The work, unless a path in it leads out of this host's folders and requests come from other machines.

        Raises BadInput with each such path, before anything has been looked for there.
        """
        checkpoints = (path.parent for _, path in self.host.checkpoints())
        roots = [os.path.realpath(root) for root in (self.datasets, *self.host.lora_folders(), *checkpoints)]
        remedy = "Use a name, or a path in the folders of datasets, checkpoints and LoRAs."
        faults = [
            Problem(setting, path, "lies outside the folders that other machines may use", remedy)
            for setting, path in (() if self.anywhere else paths_of(work))
            if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots)
        ]
        if faults:
            raise BadInput(faults)
        return work

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

        LoRAs go to the host's folder where no other one is named.
        """
        table = dict(table)
        if isinstance(base := table.get("base_model"), str):
            table["base_model"] = self.base_model(base)
        if isinstance(subsets := table.get("subsets"), list):
            table["subsets"] = [self._with_dataset(subset) for subset in subsets]
        if "output_folder" not in table and (folders := self.host.lora_folders()):
            table["output_folder"] = str(folders[0])
        return table

    def base_model(self, name: str) -> str:
        """The path of the checkpoint that the host calls so; what it does not know is taken as a path."""
        found = dict(self.host.checkpoints())
        by_file = {path.name: path for path in found.values()}
        return str(found.get(name) or by_file.get(name) or name)

    def folder_of(self, name: str) -> str:
        """The folder of the dataset of that name; what is no dataset's name is taken as a path."""
        return str(self.datasets / name) if self.has_dataset(name) else name

    def loras(self) -> Iterator[Path]:
        for folder in self.host.lora_folders():
            yield from sorted(folder.rglob("*.safetensors"))

    def _with_dataset(self, subset: Any) -> Any:
        if isinstance(subset, dict) and isinstance(folder := subset.get("folder"), str):
            return {**subset, "folder": self.folder_of(folder)}
        return subset


def is_fit(name: str) -> bool:
    """Whether it is one name, neither a path nor hidden, that every file system takes."""
    return file_name_fault(name) is None and not name.startswith(".")

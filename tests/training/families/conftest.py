"""Small base models with random weights, one file for each family, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.make_base import Models, build, make_base

Write = Callable[..., Path]


@dataclass(frozen=True)
class Small:
    """A family's small models in fp32, and the file that holds them."""

    family: str
    models: Models
    path: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Small]:
    made: dict[str, Small] = {}

    def of(family: str) -> Small:
        if family not in made:
            torch.manual_seed(1)
            models = build(family, small=True)
            for part in (models.unet, models.vae, *models.text_encoders):
                part.eval().requires_grad_(False)
            path = tmp_path_factory.mktemp("bases") / f"{family}.safetensors"
            make_base(family, path, small=True, dtype=torch.float32, models=models)
            made[family] = Small(family, models, path)
        return made[family]

    return of


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a safetensors file of zeros with these names and shapes."""

    def file(shapes: Mapping[str, tuple[int, ...]], metadata: dict[str, str] | None = None, name: str = "x") -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file({key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}, path, metadata)
        return path

    return file

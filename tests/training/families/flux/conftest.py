"""A miniature Flux in files, in any of the forms that its files have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.inspecting import BaseModel
from lora_trainer.inspecting.identify import identify
from tests.flux_files import FluxFiles, make_flux

Make = Callable[..., tuple[FluxFiles, BaseModel]]


@pytest.fixture(scope="session")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The files made with these arguments of `make_flux`, and the base that they are."""
    made: dict[str, tuple[FluxFiles, BaseModel]] = {}

    def make(variant: str = "dev", **arguments: Any) -> tuple[FluxFiles, BaseModel]:
        key = f"{variant} {arguments}"
        if key not in made:
            files = make_flux(Path(tmp_path_factory.mktemp("flux")), variant, **arguments)
            made[key] = files, replace(identify(files.transformer), parts=files.parts)
        return made[key]

    return make

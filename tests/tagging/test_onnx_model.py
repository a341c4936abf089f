from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from lora_trainer.config import BadInput
from lora_trainer.tagging.onnx_model import BATCH_ON_GPU, CPU, CUDA, DIRECTML, open_model, open_tag_model
from tests.tagging.onnx_files import tag_model

Session = onnxruntime.InferenceSession


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Three tags, each as likely as not, of pictures of 8 pixels a side."""
    tag_model(tmp_path / "model.onnx", 8, np.zeros(3))
    return tmp_path / "model.onnx"


def pretend(monkeypatch: pytest.MonkeyPatch, provider: str, behaviour: str) -> list[str]:
    """Lets onnxruntime say it has `provider`, which "works", "fails" or gives way to the CPU in silence.

    Returns the list of the providers that are tried.
    """
    tried: list[str] = []

    def session(path: str, options: object, providers: Sequence[str]) -> Any:
        tried.extend(providers)
        if providers == [provider] and behaviour == "fails":
            raise Fail("no such card\nand much more")
        opened = Session(path, options, providers=[CPU])
        if providers == [provider] and behaviour == "works":
            monkeypatch.setattr(opened, "get_providers", lambda: [provider, CPU])
        return opened

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", provider, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return tried


def test_scores_are_the_models_own(model: Path) -> None:
    opened = open_tag_model(model, model, 3, pytest.fail)
    assert (opened.side, opened.batch_size) == (8, 1)
    assert np.array_equal(opened.scores([np.zeros((8, 8, 3), np.float32)]), [[0.5, 0.5, 0.5]])


@pytest.mark.parametrize("provider", [CUDA, DIRECTML])
def test_a_graphics_card_is_taken_first(model: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    tried = pretend(monkeypatch, provider, "works")
    opened = open_tag_model(model, model, 3, pytest.fail)
    assert tried == [provider]
    assert opened.batch_size == BATCH_ON_GPU
    assert opened.scores([np.zeros((8, 8, 3), np.float32)] * 3).shape == (3, 3)


@pytest.mark.parametrize(("provider", "name"), [(CUDA, "CUDA"), (DIRECTML, "DirectML")])
def test_a_card_that_fails_is_told_and_the_cpu_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch, provider: str, name: str
) -> None:
    told: list[str] = []
    tried = pretend(monkeypatch, provider, "fails")
    assert open_tag_model(model, model, 3, told.append).batch_size == 1
    assert tried == [provider, CPU]
    short = f"{model.parent.name}/{model.name}"
    assert told == [f"{short} cannot run on {name} (no such card), so it runs more slowly on the CPU."]


def test_libraries_that_are_missing_are_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    tried = pretend(monkeypatch, CUDA, "gives way")
    assert open_tag_model(model, model, 3, told.append).batch_size == 1
    assert tried == [CUDA, CPU]
    assert len(told) == 1 and "cannot run on CUDA (its libraries are missing or of another version)" in told[0]


def test_a_card_that_fails_only_at_work_is_left(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    tried = pretend(monkeypatch, DIRECTML, "works")

    def trial(session: Any) -> None:
        if session.get_providers()[0] == DIRECTML:
            raise Fail("device removed")

    open_model(model, told.append, trial)
    assert tried == [DIRECTML, CPU]
    assert len(told) == 1 and "cannot run on DirectML (device removed)" in told[0]


def test_a_damaged_file_is_told_once_for_all_providers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.write_bytes(b"no model")
    with pytest.raises(BadInput, match=r"model\.onnx.*is damaged or cut off"):
        open_model(model, pytest.fail, lambda session: None)

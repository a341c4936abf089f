"""ONNX models, run where they run fastest: on a graphics card if one can, else on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_trainer.tagging.weights import damaged

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

Notice = Callable[[str], None]

# Fastest first. CoreML is left out: it takes such models to pieces, and a piece may well run slower than on the CPU.
CUDA, DIRECTML, CPU = "CUDAExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider"
PROVIDERS = (CUDA, "ROCMExecutionProvider", DIRECTML, CPU)
BATCH_ON_GPU = 16


@dataclass(frozen=True)
class TagModel:
    """A model that takes pictures (B, side, side, 3) as float32 and gives a probability for each tag (B, tags)."""

    session: InferenceSession

    @property
    def side(self) -> int:
        return int(self.session.get_inputs()[0].shape[1])

    @property
    def batch_size(self) -> int:
        return batch_size(self.session, BATCH_ON_GPU)

    def scores(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(B, tags) from B <= batch_size pictures, float32 (side, side, 3) each."""
        given, wanted = self.session.get_inputs()[0].name, self.session.get_outputs()[0].name
        filling = [pixels[0]] * (self.batch_size - len(pixels))  # some models take no fewer
        scores: np.ndarray = self.session.run([wanted], {given: np.stack([*pixels, *filling])})[0]
        return scores[: len(pixels)]


def batch_size(session: InferenceSession, on_gpu: int) -> int:
    """How many pictures are best run at once; on the CPU one, as several take no less time each."""
    fixed = session.get_inputs()[0].shape[0]
    if isinstance(fixed, int):
        return fixed
    return 1 if session.get_providers() == [CPU] else on_gpu


def open_tag_model(path: Path, tags_file: Path, tags: int, notice: Notice) -> TagModel:
    """The model, once it has scored a blank picture. Raises BadInput where its file is damaged or knows other tags."""

    def trial(session: InferenceSession) -> None:
        shape, model = session.get_inputs()[0].shape, TagModel(session)
        if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or not isinstance(shape[1], int):
            raise damaged(path, f"takes no square pictures, but {shape}")
        blank = np.zeros((model.side, model.side, 3), dtype=np.float32)
        known = model.scores([blank]).shape[-1]
        if known != tags:
            problem = f"names {tags:,} tags, and {path.name} beside it knows {known:,}"
            raise damaged(tags_file, problem)

    return TagModel(open_model(path, notice, trial))


def open_model(path: Path, notice: Notice, trial: Callable[[InferenceSession], object]) -> InferenceSession:
    """A session on the first provider on which the model loads and `trial`, which may run it, goes well.

    Some providers fail only when a model is run. One that fails is told in a notice. Raises BadInput where the file is
    damaged.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    failures = (
        errors.EPFail, errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
        errors.NoSuchFile, errors.NotImplemented, errors.RuntimeException, RuntimeError,
    )  # fmt: skip
    available = onnxruntime.get_available_providers()
    if CUDA in available:
        import torch  # noqa: F401  # brings the libraries of CUDA, which onnxruntime then finds
    for provider in (provider for provider in PROVIDERS[:-1] if provider in available):
        try:
            session = onnxruntime.InferenceSession(str(path), _options(provider), providers=[provider])
            trial(session)
        except failures as error:
            notice(_slower(path, provider, _first_line(error)))
            continue
        if provider in session.get_providers():
            return session
        notice(_slower(path, provider, "its libraries are missing or of another version"))
    try:
        session = onnxruntime.InferenceSession(str(path), _options(CPU), providers=[CPU])
        trial(session)
    except failures as error:
        raise damaged(path, f"is damaged or cut off ({_first_line(error)})") from error
    return session


def _options(provider: str) -> SessionOptions:
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.log_severity_level = 4  # what fails is told in our own words
    # Threads that spin while they wait would take the CPU from those that decode the next pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = provider != DIRECTML  # which cannot have it
    return options


def _slower(path: Path, provider: str, cause: str) -> str:
    name = {DIRECTML: "DirectML"}.get(provider, provider.removesuffix("ExecutionProvider"))
    return f"{path.parent.name}/{path.name} cannot run on {name} ({cause}), so it runs more slowly on the CPU."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]

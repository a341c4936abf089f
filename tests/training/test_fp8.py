"""Weights held in 8 bits: their values against e4m3's definition, products against plain layers of these values."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_trainer.config import BadInput, Config
from lora_trainer.training.device import choose_precision
from lora_trainer.training.fp8 import FP8, held, hold_in_fp8
from lora_trainer.training.loop import train
from lora_trainer.training.lora import Dropouts, LoraLayer
from lora_trainer.training.lycoris_layer import LycorisLayer

ConfigOf = Callable[..., Config]

# Every number that e4m3 has: a sign, an exponent of 4 bits (bias 7), a fraction of 3; (15, 7) alone is NaN.
_SIZES = [
    fraction / 8 * 2.0**-6 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7)
    for exponent in range(16)
    for fraction in range(8)
    if (exponent, fraction) != (15, 7)
]
E4M3 = torch.tensor(sorted({sign * size for size in _SIZES for sign in (1, -1)}), dtype=torch.float64)

LAYERS = pytest.mark.parametrize(
    "make_layer",
    [
        lambda: nn.Linear(12, 20),
        lambda: nn.Linear(12, 20, bias=False),
        lambda: nn.Conv2d(12, 20, 1),
        lambda: nn.Conv2d(12, 20, 3, stride=2, padding=1),
        lambda: nn.Conv2d(12, 20, 3, padding=1, groups=4, dilation=2),
    ],
    ids=["linear", "no-bias", "1x1", "3x3", "groups"],
)


def frozen(layer: nn.Module, dtype: torch.dtype = torch.float32) -> Any:
    return layer.requires_grad_(False).to(dtype)


def held_and_plain(make_layer: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A layer held in 8 bits, and torch's own with the very same numbers."""
    layer = frozen(make_layer(), dtype)
    plain = copy.deepcopy(layer)
    hold_in_fp8(layer)
    plain.weight.copy_(layer.weight)
    return layer, plain


def input_of(layer: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    shape = (2, 5, 12) if isinstance(layer, nn.Linear) else (2, 12, 7, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()


# So small that float32 itself is coarser than 8 bits of it, no weight is.
WEIGHTS = st.floats(-1e4, 1e4, width=32).filter(lambda number: number == 0 or abs(number) > 1e-25)


@given(st.lists(WEIGHTS, min_size=1, max_size=30), st.integers(-20, 3))
def test_each_weight_is_the_nearest_that_e4m3_has(numbers: list[float], exponent: int) -> None:
    weight = (torch.tensor(numbers) * 2.0**exponent)[None]
    layer = nn.Linear(len(numbers), 1)
    with torch.no_grad():
        layer.weight.copy_(weight)
    hold_in_fp8(frozen(layer))
    unit = held(layer)[1]
    grid = E4M3 * unit
    nearest = (weight.double()[..., None] - grid).abs().amin(-1)
    torch.testing.assert_close((weight.double() - layer.weight.double()).abs(), nearest, atol=0, rtol=1e-6)
    assert unit == 1 or weight.abs().max() <= grid.max() < 2.1 * weight.abs().max()


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computes_as_a_plain_layer_of_the_same_weights(make_layer: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    layer, plain = held_and_plain(make_layer, dtype)
    left, right = input_of(layer, dtype), input_of(layer, dtype)
    found, expected = layer(left), plain(right)
    torch.testing.assert_close(found, expected)
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(left.grad, right.grad)


def lora(base: Any) -> LoraLayer:
    return LoraLayer(base, 4, 2.0)


def lora_with_dropouts(base: Any) -> LoraLayer:
    return LoraLayer(base, 4, 2.0, Dropouts(0.2, 0.2))


def lyco(kind: str) -> Callable[[Any], LycorisLayer]:
    return lambda base: LycorisLayer(base, 4, 2.0, kind)


@pytest.mark.parametrize(
    "base", [lambda: nn.Linear(12, 20), lambda: nn.Conv2d(12, 20, 1), lambda: nn.Conv2d(12, 20, 3)]
)
@pytest.mark.parametrize("make", [lora, lora_with_dropouts, lyco("LoHa"), lyco("LoKr"), lyco("DoRA")])
@pytest.mark.parametrize("order", ["held first", "held later"])
def test_networks_learn_on_it_as_on_a_plain_layer(
    base: Callable[[], nn.Module], make: Callable[[Any], Any], order: str
) -> None:
    bottom, plain = held_and_plain(base)
    if order == "held first":
        layer = make(bottom)
    else:
        layer = make(copy.deepcopy(plain))
        hold_in_fp8(layer)
        assert all(weight.dtype == torch.float32 for weight in layer.weights())
    reference = make(plain)
    for each in (layer, reference):
        each.initialise(torch.Generator().manual_seed(3))
        with torch.no_grad():
            for weight in each.weights():
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)), alpha=0.1)
    for each in (layer, reference):
        torch.manual_seed(5)
        each(input_of(plain)).square().sum().backward()
    for found, expected in zip(layer.weights(), reference.weights()):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-4, rtol=1e-4)


@LAYERS
@pytest.mark.parametrize("make", [None, lora, lora_with_dropouts], ids=["alone", "lora", "dropouts"])
def test_nothing_spread_is_kept_for_the_backward_pass(make_layer: Callable[[], nn.Module], make: Any) -> None:
    layer = frozen(make_layer())
    hold_in_fp8(layer)
    size = held(layer)[0].numel()
    layer = make(layer) if make and getattr(layer, "groups", 1) == 1 else layer
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(input_of(layer.base if make and hasattr(layer, "base") else layer))
    assert [tensor.dtype for tensor in kept if tensor.numel() == size] == [FP8]


def test_takes_a_byte_for_each_weight_and_leaves_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GroupNorm(4, 64), nn.Conv2d(64, 64, 3))
    trained = nn.Linear(64, 64)
    frozen(model)
    model.append(trained)
    weights = 64 * 64 + 64 * 64 * 9
    hold_in_fp8(model)
    sizes = [parameter.numel() * parameter.element_size() for parameter in model.parameters()]
    assert sum(sizes) == weights + 4 * (64 + 64 + 2 * 64) + 4 * (64 * 64 + 64)
    assert trained.weight.dtype == torch.float32 and trained.weight.requires_grad
    before = [parameter.clone() for parameter in model.parameters()]
    hold_in_fp8(model)  # a second time changes nothing
    assert all(torch.equal(left.float(), right.float()) for left, right in zip(before, model.parameters()))


def losses_into(told: list[float]) -> Callable[..., None]:
    def listen(kind: str, /, **facts: Any) -> None:
        if kind == "progress":
            told.append(facts["loss"])

    return listen


def test_a_run_on_it_learns_nearly_the_same_and_says_so(config_of: ConfigOf, xl_base: Any) -> None:
    losses: dict[str, list[float]] = {"auto": [], "fp8": []}
    for precision, told in losses.items():
        options = {"base_model": str(xl_base), "base_precision": precision, "dropout": 0.1}
        outcome = train(config_of(output_name=precision, epochs=2, **options), losses_into(told))
    assert losses["fp8"] == pytest.approx(losses["auto"], rel=0.02)
    assert losses["fp8"] != losses["auto"]
    assert outcome.lora is not None
    assert all(tensor.isfinite().all() for tensor in load_file(outcome.lora).values())
    with safe_open(outcome.lora, "pt") as file:
        assert file.metadata()["ss_fp8_base"] == "True"


def test_is_refused_where_there_are_no_8_bit_numbers() -> None:
    with pytest.raises(BadInput, match="runs on the MPS here, which has no 8-bit numbers"):
        choose_precision("no", "fp8", torch.device("mps"))
    assert choose_precision("no", "fp8", torch.device("cpu")).fp8
    assert choose_precision("bf16", "fp8", torch.device("cuda")).compute == torch.bfloat16
    with pytest.raises(BadInput, match="in fp8 or in the precision it is computed in, here no"):
        choose_precision("no", "int8", torch.device("cpu"))

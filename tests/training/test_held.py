"""Weights held in 8 and 4 bits: their values against e4m3's and NF4's definitions, products against plain layers."""

from __future__ import annotations

import copy
import sys
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
from lora_trainer.training import device
from lora_trainer.training.device import choose_precision
from lora_trainer.training.held import FP8, as_is, from_fp8, from_nf4, held, hold, place_of, put_into, round_to
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

# The appendix of the paper (https://arxiv.org/abs/2305.14314).
NF4 = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip

KINDS = pytest.mark.parametrize("kind", ["fp8", "nf4", ""])
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


def keep(layer: Any, kind: str) -> None:
    """Holds one layer, or what is in a model; "" as it is."""
    if kind:
        hold(layer, kind)
    else:
        put_into(layer, as_is(layer.weight), layer.weight.dtype)


def held_and_plain(
    make_layer: Callable[[], nn.Module], dtype: torch.dtype = torch.float32, kind: str = "fp8"
) -> tuple[Any, Any]:
    """A held layer, and torch's own with the very same numbers."""
    layer = frozen(make_layer(), dtype)
    plain = copy.deepcopy(layer)
    keep(layer, kind)
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
    hold(frozen(layer), "fp8")
    unit = held(layer).form.unit  # type: ignore[attr-defined]
    grid = E4M3 * unit
    nearest = (weight.double()[..., None] - grid).abs().amin(-1)
    torch.testing.assert_close((weight.double() - layer.weight.double()).abs(), nearest, atol=0, rtol=1e-6)
    assert unit == 1 or weight.abs().max() <= grid.max() < 2.1 * weight.abs().max()


@pytest.mark.parametrize("shape", [(64, 64), (10, 100), (3, 5), (7, 3)])
def test_each_weight_is_the_nearest_that_nf4_has_in_its_block(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = round_to("nf4", weight)
    assert sum(tensor.nbytes for tensor in found.tensors) == -(-weight.numel() // 2) + 4 * -(-weight.numel() // 64)
    assert found.spread(torch.float32).shape == shape
    blocks = zip(weight.flatten().split(64), found.spread(torch.float32).flatten().split(64))
    for block, spread in blocks:
        nearest = (block[:, None] - NF4 * block.abs().max()).abs().amin(1)
        torch.testing.assert_close((block - spread).abs(), nearest, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [(64, 64), (320, 96)])
def test_a_files_own_nf4_is_as_bitsandbytes_reads_it(nested: bool, shape: tuple[int, int]) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    beside = state.as_dict(packed=True)
    found = from_nf4(packed, beside)
    assert found.kind == "nf4"
    assert torch.equal(found.spread(torch.float32), functional.dequantize_4bit(packed, state))
    with pytest.raises(ValueError, match="is no NF4 weight of the shape"):
        from_nf4(packed[:-1], beside)
    with pytest.raises(KeyError):
        from_nf4(packed, {name: tensor for name, tensor in beside.items() if name != "absmax"})


def test_a_files_own_8_bits_stay_as_they_are() -> None:
    numbers = E4M3.float().to(FP8)[:250].reshape(10, 25)
    layer = frozen(nn.Linear(25, 10, device="meta"))
    put_into(layer, from_fp8(numbers), torch.float32)
    hold(layer, "nf4")  # what is rounded already is left as it is
    assert torch.equal(held(layer).tensors[0].view(torch.uint8), numbers.view(torch.uint8))
    assert torch.equal(layer.weight, numbers.float())


def test_a_layer_computes_where_its_bias_lies() -> None:
    layer = frozen(nn.Linear(4, 4))
    put_into(layer, as_is(layer.weight.to("meta")), torch.float32)
    assert place_of(layer) == torch.device("cpu") and LoraLayer(layer, 2, 1.0).lora_down.device.type == "cpu"


@LAYERS
@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computes_as_a_plain_layer_of_the_same_weights(
    make_layer: Callable[[], nn.Module], dtype: torch.dtype, kind: str
) -> None:
    layer, plain = held_and_plain(make_layer, dtype, kind)
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
@KINDS
def test_networks_learn_on_it_as_on_a_plain_layer(
    base: Callable[[], nn.Module], make: Callable[[Any], Any], order: str, kind: str
) -> None:
    bottom, plain = held_and_plain(base, kind=kind)
    if order == "held first":
        layer = make(bottom)
    else:
        layer = make(copy.deepcopy(plain))
        keep(layer if kind else layer.base, kind)
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
@pytest.mark.parametrize("kind", ["fp8", "nf4"])
@pytest.mark.parametrize("make", [None, lora, lora_with_dropouts], ids=["alone", "lora", "dropouts"])
def test_nothing_spread_is_kept_for_the_backward_pass(
    make_layer: Callable[[], nn.Module], make: Any, kind: str
) -> None:
    layer = frozen(make_layer())
    size = layer.weight.numel()
    hold(layer, kind)
    lying = held(layer).tensors
    layer = make(layer) if make and getattr(layer, "groups", 1) == 1 else layer
    kept: list[Tensor] = []

    def listen(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(listen, lambda tensor: tensor):
        layer(input_of(layer.base if make and hasattr(layer, "base") else layer))
    places = {tensor.data_ptr() for tensor in kept}
    assert places >= {tensor.data_ptr() for tensor in lying}
    assert [tensor.dtype for tensor in kept if tensor.numel() == size] == ([FP8] if len(lying) == 1 else [])


def test_takes_a_byte_for_each_weight_and_leaves_what_is_trained() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.GroupNorm(4, 64), nn.Conv2d(64, 64, 3))
    trained = nn.Linear(64, 64)
    frozen(model)
    model.append(trained)
    weights = 64 * 64 + 64 * 64 * 9
    hold(model, "fp8")
    sizes = [parameter.numel() * parameter.element_size() for parameter in model.parameters()]
    assert sum(sizes) == weights + 4 * (64 + 64 + 2 * 64) + 4 * (64 * 64 + 64)
    assert trained.weight.dtype == torch.float32 and trained.weight.requires_grad
    before = [parameter.clone() for parameter in model.parameters()]
    hold(model, "fp8")  # a second time changes nothing
    assert all(torch.equal(left.float(), right.float()) for left, right in zip(before, model.parameters()))


def losses_into(told: list[float]) -> Callable[..., None]:
    def listen(kind: str, /, **facts: Any) -> None:
        if kind == "progress":
            told.append(facts["loss"])

    return listen


@pytest.mark.parametrize(("kind", "near"), [("fp8", 0.02), ("nf4", 0.1)])
def test_a_run_on_it_learns_nearly_the_same_and_says_so(
    config_of: ConfigOf, xl_base: Any, kind: str, near: float
) -> None:
    losses: dict[str, list[float]] = {"auto": [], kind: []}
    for precision, told in losses.items():
        options = {"base_model": str(xl_base), "base_precision": precision, "dropout": 0.1}
        outcome = train(config_of(output_name=precision, epochs=2, **options), losses_into(told))
    assert losses[kind] == pytest.approx(losses["auto"], rel=near)
    assert losses[kind] != losses["auto"]
    assert outcome.lora is not None
    assert all(tensor.isfinite().all() for tensor in load_file(outcome.lora).values())
    with safe_open(outcome.lora, "pt") as file:
        assert file.metadata()["ss_fp8_base"] == str(kind == "fp8")


def test_auto_keeps_a_files_own_numbers_where_the_device_takes_them() -> None:
    cpu, mps = torch.device("cpu"), torch.device("mps")
    assert [choose_precision("no", "auto", cpu, own).hold for own in ("", "bf16", "fp8", "nf4")] == [
        None, None, "fp8", "nf4"
    ]  # fmt: skip
    assert choose_precision("no", "auto", mps, "fp8").hold is None
    assert choose_precision("bf16", "bf16", cpu, "fp8").hold is None


def test_is_refused_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    device._lacking_nf4.cache_clear()
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(BadInput, match="needs the package bitsandbytes"):
        choose_precision("no", "nf4", torch.device("cpu"))
    with pytest.raises(BadInput, match="has weights in NF4, which needs the package bitsandbytes") as caught:
        choose_precision("no", "auto", torch.device("cpu"), "nf4")
    assert caught.value.problems[0].setting == "base_model"
    device._lacking_nf4.cache_clear()


def test_is_refused_where_there_are_no_8_bit_numbers() -> None:
    with pytest.raises(BadInput, match="runs on the MPS here, which has no 8-bit numbers"):
        choose_precision("no", "fp8", torch.device("mps"))
    assert choose_precision("no", "fp8", torch.device("cpu")).hold == "fp8"
    assert choose_precision("bf16", "fp8", torch.device("cuda")).compute == torch.bfloat16
    with pytest.raises(BadInput, match="in 8 or 4 bits or in the precision it is computed in, here no"):
        choose_precision("no", "int8", torch.device("cpu"))

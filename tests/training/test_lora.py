"""The low-rank layers against plain autograd, closed forms and torch's own layers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lora_trainer.training.held import AsIs
from lora_trainer.training.lora import NO_DROPOUTS, Dropouts, Layer, LoraLayer, LoraNetwork, LowRankLinear, Target


def layer_of(base: nn.Module, rank: int = 4, alpha: float = 2.0, dropouts: Dropouts = NO_DROPOUTS) -> LoraLayer:
    base.requires_grad_(False)
    layer = LoraLayer(base, rank, alpha, dropouts)  # type: ignore[arg-type]
    layer.initialise(torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.lora_up.normal_(generator=torch.Generator().manual_seed(2))
    return layer


def test_single_node_gradients_are_those_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    x, down, up = draw(2, 3, 5), draw(2, 5), draw(7, 2)
    weight, bias = draw(7, 5).detach(), draw(7).detach()

    def forward(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return LowRankLinear.apply(x, bias, down, up, 0.7, AsIs(), weight)

    assert torch.autograd.gradcheck(forward, (x, down, up))


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_linear_layer_is_base_plus_scaled_branch(shape: tuple[int, ...]) -> None:
    layer = layer_of(nn.Linear(6, 8))
    x = torch.randn(shape)
    expected = layer.base(x) + (2.0 / 4) * (x @ layer.lora_down.t() @ layer.lora_up.t())
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_convolution_is_the_base_with_the_merged_weight(memory_format: torch.memory_format) -> None:
    for base in (nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)):
        layer = layer_of(base)
        merged = torch.einsum("or,ri...->oi...", layer.lora_up.flatten(1), layer.lora_down) * 2.0 / 4 + base.weight
        x = torch.randn(2, 6, 8, 8).contiguous(memory_format=memory_format)
        expected = F.conv2d(x, merged, base.bias, base.stride, base.padding)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_convolution_gradients_are_those_of_the_merged_weight() -> None:
    layer, x = layer_of(nn.Conv2d(6, 8, 1)), torch.randn(2, 6, 8, 8, requires_grad=True)
    layer(x).square().sum().backward()
    down, up = layer.lora_down.detach().clone().requires_grad_(), layer.lora_up.detach().clone().requires_grad_()
    y = x.detach().clone().requires_grad_()
    merged = torch.einsum("or,ri...->oi...", up.flatten(1), down) * 2.0 / 4 + layer.base.weight
    F.conv2d(y, merged, layer.base.bias).square().sum().backward()
    for ours, theirs in ((layer.lora_down.grad, down.grad), (layer.lora_up.grad, up.grad), (x.grad, y.grad)):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


def test_starts_as_the_base_and_as_torch_initialises_a_linear() -> None:
    base = nn.Linear(400, 300)
    layer = LoraLayer(base, 64, 32.0, Dropouts())
    layer.initialise(torch.Generator().manual_seed(0))
    x = torch.randn(5, 400)
    torch.testing.assert_close(layer(x), base(x))
    bound = 1 / math.sqrt(400)  # nn.Linear's default: kaiming uniform with a = sqrt(5)
    assert layer.lora_down.abs().max() <= bound
    assert layer.lora_down.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_bf16_input_keeps_float32_weights_and_gradients() -> None:
    layer = layer_of(nn.Linear(6, 8).to(torch.bfloat16))
    out = layer(torch.randn(3, 6, dtype=torch.bfloat16))
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert layer.lora_down.dtype == layer.lora_down.grad.dtype == torch.float32  # type: ignore[union-attr]


def test_multiplier_zero_is_the_base_and_half_is_half_way() -> None:
    layer, x = layer_of(nn.Linear(6, 8)), torch.randn(3, 6)
    whole, base = layer(x), layer.base(x)
    layer.multiplier = 0.0
    torch.testing.assert_close(layer(x), base)
    layer.multiplier = 0.5
    torch.testing.assert_close(layer(x), (whole + base) / 2)


@pytest.mark.parametrize("dropouts", [Dropouts(network=0.3), Dropouts(rank=0.3)])
def test_dropouts_keep_the_mean(dropouts: Dropouts) -> None:
    torch.manual_seed(0)
    layer, x = layer_of(nn.Linear(6, 8), rank=32, alpha=8.0, dropouts=dropouts), torch.randn(1, 6)
    branch = torch.stack([layer(x) - layer.base(x) for _ in range(4000)])
    expected = layer.eval()(x) - layer.base(x)
    assert (branch.mean(0) - expected).norm() < 0.05 * expected.norm()
    assert branch.std(0).mean() > 0


def test_module_dropout_leaves_the_base_as_often_as_said() -> None:
    torch.manual_seed(0)
    layer, x = layer_of(nn.Linear(6, 8), dropouts=Dropouts(module=0.25)), torch.randn(1, 6)
    left = sum(torch.equal(layer(x), layer.base(x)) for _ in range(2000))
    assert left / 2000 == pytest.approx(0.25, abs=0.04)


def network_of(rank: int = 2) -> tuple[nn.Sequential, LoraNetwork]:
    model = nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.Conv2d(3, 5, 3)))
    return model, LoraNetwork([Target(model, "0", "a_0", rank, 1.0), Target(model, "1.0", "a_1_0", rank, 1.0, 0.5)])


def test_network_takes_the_place_of_layers_and_round_trips() -> None:
    model, network = network_of()
    network.initialise(lambda key: torch.Generator().manual_seed(len(key)))
    assert isinstance(model[0], LoraLayer) and isinstance(model[1][0], LoraLayer)  # type: ignore[index]
    tensors = network.state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in tensors.items()} == {
        "a_0.alpha": (),
        "a_0.lora_down.weight": (2, 6),
        "a_0.lora_up.weight": (8, 2),
        "a_1_0.alpha": (),
        "a_1_0.lora_down.weight": (2, 3, 3, 3),
        "a_1_0.lora_up.weight": (5, 2, 1, 1),
    }
    _, other = network_of()
    assert other.load_state_dict(tensors) == ()
    assert all(torch.equal(value, tensors[key]) for key, value in other.state_dict().items())
    _, larger = network_of(rank=3)
    assert larger.load_state_dict(tensors) == ("a_0", "a_1_0")


def test_norms_are_limited_to_the_frobenius_norm_of_the_product() -> None:
    _, network = network_of()
    network.initialise(lambda key: torch.Generator().manual_seed(len(key)))
    with torch.no_grad():
        for layer in network.layers.values():
            layer.weights()[1].fill_(1.0)
    before = {key: _product_norm(layer) for key, layer in network.layers.items()}
    longest = min(before.values()) * 1.01
    assert network.limit_norms(longest) == 1
    for key, layer in network.layers.items():
        assert _product_norm(layer) == pytest.approx(min(before[key], longest), rel=1e-4)


def _product_norm(layer: Layer) -> float:
    assert isinstance(layer, LoraLayer)
    product = layer.lora_up.flatten(1) @ layer.lora_down.flatten(1) * layer.alpha / layer.rank
    return torch.linalg.matrix_norm(product.detach()).item()

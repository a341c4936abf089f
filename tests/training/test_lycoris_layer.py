"""LoHa, LoKr and DoRA against their closed forms, and against LyCORIS's own network for sd-scripts."""

from __future__ import annotations

import copy
import itertools
import json
from types import SimpleNamespace
from typing import Any

import lycoris.kohya
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lora_trainer.config import Config
from lora_trainer.config.networks import network_args
from lora_trainer.training.families import family_of
from lora_trainer.training.layers import layer_maker
from lora_trainer.training.lora import NO_DROPOUTS, Dropouts, LoraLayer, LoraNetwork
from lora_trainer.training.lycoris_layer import LycorisLayer
from lora_trainer.training.targets import targets
from tests.make_base import build

KINDS = ("LoHa", "LoKr", "DoRA")
RANK, ALPHA = 4, 2.0


def linear() -> nn.Module:
    return nn.Linear(20, 30)


def small_kernel() -> nn.Module:
    return nn.Conv2d(20, 30, 1)


def kernel() -> nn.Module:
    return nn.Conv2d(20, 30, 3, stride=2, padding=1)


BASES = pytest.mark.parametrize("make_base", [linear, small_kernel, kernel])


def layer_of(base: nn.Module, kind: str, dropouts: Dropouts = NO_DROPOUTS, **options: Any) -> LycorisLayer:
    """With every weight drawn anew, so that no factor is zero."""
    rank, alpha = options.pop("rank", RANK), options.pop("alpha", ALPHA)
    layer = LycorisLayer(base.requires_grad_(False), rank, alpha, kind, dropouts, **options)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in layer.weights():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return layer


def input_of(base: nn.Module, samples: int = 2) -> Tensor:
    shape = (samples, 5, 20) if isinstance(base, nn.Linear) else (samples, 20, 6, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def closed_form(tensors: dict[str, Tensor], weight: Tensor) -> Tensor:
    """What a file's tensors add to `weight`, of the same shape."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    if "hada_w1_a" in t:
        scale = t["alpha"] / len(t["hada_w1_b"])
        return (scale * (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])).view(weight.shape)
    if "lokr_w1" in t:
        second = t["lokr_w2"].flatten(1) if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
        scale = torch.tensor(1.0) if "lokr_w2" in t else t["alpha"] / len(t["lokr_w2_b"])
        return (scale * torch.einsum("ac,bd->abcd", t["lokr_w1"], second)).reshape(weight.shape)
    down, up = t["lora_down.weight"], t["lora_up.weight"]
    changed = weight + t["alpha"] / len(down) * (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    lengths = changed.transpose(0, 1).flatten(1).norm(dim=1)
    each_input = (1, -1, *[1] * (weight.ndim - 2))
    return changed * (t["dora_scale"].flatten() / lengths).view(each_input) - weight


@pytest.mark.parametrize("kind", KINDS)
@BASES
def test_the_frozen_layer_is_computed_with_the_changed_weight(make_base: Any, kind: str) -> None:
    base = make_base()
    layer, x = layer_of(base, kind), input_of(base)
    merged = (base.weight + closed_form(layer.tensors(), base.weight)).float()
    if isinstance(base, nn.Linear):
        expected = F.linear(x, merged, base.bias)
    else:
        expected = F.conv2d(x, merged, base.bias, base.stride, base.padding)
    assert not torch.allclose(expected, base(x), atol=1e-2)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.sampled_from((-1, 1, 2, 3, 4, 8, 100)))
def test_a_lokr_of_any_size_is_a_kronecker_product(outputs: int, inputs: int, rank: int, factor: int) -> None:
    base = nn.Linear(inputs, outputs)
    layer = layer_of(base, "LoKr", rank=rank, alpha=3.0, lokr_factor=factor)
    expected = closed_form(layer.tensors(), base.weight).float()
    torch.testing.assert_close(layer.delta(), expected, atol=1e-6, rtol=1e-4)


def test_lengths_of_a_dora_are_those_it_trains() -> None:
    base = nn.Linear(20, 30)
    layer = layer_of(base, "DoRA")
    lengths = (base.weight + layer.delta()).norm(dim=0)
    torch.testing.assert_close(lengths, layer.tensors()["dora_scale"].flatten().abs(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@BASES
def test_gradients_are_those_of_the_closed_form(make_base: Any, kind: str) -> None:
    base = make_base()
    layer, generator = layer_of(base, kind), torch.Generator().manual_seed(4)
    towards = torch.randn(base.weight.shape, generator=generator)
    (layer.delta() * towards).sum().backward()
    names = [name for name, _ in layer.change.named_parameters()]
    plain = {name: tensor.clone().requires_grad_(name in names) for name, tensor in layer.tensors().items()}
    (closed_form(plain, base.weight) * towards).sum().backward()
    for name, weight in layer.change.named_parameters():
        torch.testing.assert_close(weight.grad, plain[name].grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@BASES
def test_begins_as_the_base_with_draws_of_its_generator(make_base: Any, kind: str) -> None:
    base = make_base().requires_grad_(False)
    layer, x = LycorisLayer(base, RANK, ALPHA, kind), input_of(base)

    def begun(seed: int) -> dict[str, Tensor]:
        layer.initialise(torch.Generator().manual_seed(seed))
        torch.testing.assert_close(layer(x), base(x), atol=1e-5, rtol=1e-5)
        return {name: tensor.clone() for name, tensor in layer.tensors().items()}

    torch.manual_seed(0)
    first, draw = begun(1), torch.rand(())
    torch.manual_seed(9)
    again = begun(1)
    torch.manual_seed(0)
    other = begun(2)
    assert torch.equal(draw, torch.rand(())), "the global generator is left alone"
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_less_than_half_a_step_of_bf16_is_not_lost(kind: str) -> None:
    base = nn.Linear(20, 30, bias=False).to(torch.bfloat16)
    nn.init.ones_(base.weight)
    layer, x = layer_of(base, kind), torch.zeros(1, 20, dtype=torch.bfloat16)
    x[0, 0], x[0, 1] = 1, -1  # the base's output is 0
    layer.multiplier = 0.001 / layer.delta().abs().max().item()
    added = layer.multiplier * closed_form(layer.tensors(), base.weight)
    out = layer(x)
    assert out.dtype == torch.bfloat16 and all(weight.dtype == torch.float32 for weight in layer.weights())
    torch.testing.assert_close(out[0].double(), added[:, 0] - added[:, 1], atol=1e-5, rtol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_multiplier_zero_is_the_base_and_half_is_half_way(kind: str) -> None:
    base = linear()
    layer, x = layer_of(base, kind), input_of(base)
    whole = layer(x)
    layer.multiplier = 0.0
    assert torch.equal(layer(x), base(x))
    layer.multiplier = 0.5
    torch.testing.assert_close(layer(x), (whole + base(x)) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rank_dropout_leaves_out_rows_of_the_change_and_only_in_training(kind: str) -> None:
    torch.manual_seed(0)
    layer = layer_of(linear(), kind, Dropouts(rank=0.5))
    whole = layer.eval().product()
    layer.train()
    layer.change.wd = False  # DoRA's lengths would make up for what is left out
    rows = torch.stack([layer.delta() for _ in range(200)])
    left_out = (rows == 0).all(dim=2)
    assert left_out.float().mean().item() == pytest.approx(0.5, abs=0.03)
    kept = ~left_out
    torch.testing.assert_close(rows[kept], whole.expand_as(rows)[kept])


@pytest.mark.parametrize("kind", KINDS)
def test_module_dropout_leaves_the_base_as_often_as_said(kind: str) -> None:
    torch.manual_seed(0)
    base = linear()
    layer, x = layer_of(base, kind, Dropouts(module=0.25)), input_of(base, 1)
    assert sum(torch.equal(layer(x), base(x)) for _ in range(800)) / 800 == pytest.approx(0.25, abs=0.05)
    assert not torch.equal(layer.eval()(x), base(x))


@pytest.mark.parametrize("kind", KINDS)
@BASES
def test_norms_are_limited_to_that_of_the_product(make_base: Any, kind: str) -> None:
    layer = layer_of(make_base(), kind)
    norm = layer.product().norm().item()
    assert not layer.limit_norm(norm * 1.01)
    assert layer.product().norm().item() == norm
    assert layer.limit_norm(norm / 3)
    assert layer.product().norm().item() == pytest.approx(norm / 3, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@BASES
def test_goes_on_from_its_tensors_and_makes_up_for_another_alpha(make_base: Any, kind: str) -> None:
    base = make_base()
    tensors = {name: tensor.clone() for name, tensor in layer_of(base, kind).tensors().items()}
    same, louder = (LycorisLayer(base, RANK, alpha, kind) for alpha in (ALPHA, 4 * ALPHA))
    assert same.load(tensors) and louder.load(tensors)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in same.tensors().items())
    torch.testing.assert_close(louder.delta(), same.delta())


def test_a_lora_makes_up_for_another_alpha_too() -> None:
    first, louder = (LoraLayer(nn.Linear(20, 30), RANK, alpha) for alpha in (ALPHA, 4 * ALPHA))
    nn.init.normal_(first.lora_up)
    assert louder.load(first.tensors())
    torch.testing.assert_close(louder.lora_up, first.lora_up / 4)
    assert louder.load({name: tensor for name, tensor in first.tensors().items() if name != "alpha"})
    torch.testing.assert_close(louder.lora_up, first.lora_up * RANK / (4 * ALPHA))


def test_a_file_of_another_kind_or_form_does_not_fit() -> None:
    base = nn.Linear(20, 20)
    kinds = {kind: LycorisLayer(base, RANK, ALPHA, kind) for kind in KINDS}
    layers: dict[str, Any] = {**kinds, "LoRA": LoraLayer(base, RANK, ALPHA)}
    for ours, theirs in itertools.permutations(layers, 2):
        assert not layers[ours].load(layers[theirs].tensors()), f"{theirs} as {ours}"
    by_output = {name: tensor.clone() for name, tensor in kinds["DoRA"].tensors().items()}
    by_output["dora_scale"] = by_output["dora_scale"].t()
    assert not kinds["DoRA"].load(by_output)


# ---- LyCORIS's own network, as sd-scripts makes it of the arguments that our file names


@pytest.fixture(scope="module")
def parts() -> Any:
    torch.manual_seed(0)
    return build("sd15", small=True)


CASES = [
    *({"kind": kind} for kind in KINDS),
    {"kind": "LoKr", "lokr_factor": 4, "rank": 2},
    {"kind": "LoHa", "rank_dropout": 0.1, "module_dropout": 0.1, "train": "unet"},
]


@pytest.mark.parametrize("changes", CASES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_lycoris_itself_makes_the_same_network_of_the_file(changes: dict[str, Any], parts: Any) -> None:
    config = Config(**{"rank": 8, "alpha": 4.0, **changes}).for_family("sd15")
    unet, encoder = copy.deepcopy((parts.unet, parts.text_encoders[0]))
    for weight in (*unet.parameters(), *encoder.parameters()):
        weight.requires_grad_(False)
    theirs = {"unet": copy.deepcopy(unet), "text": copy.deepcopy(encoder) if config.train == "both" else None}

    network = network_of(config, unet, encoder)
    tensors = network.state_dict()
    arguments = {name: str(value) for name, value in json.loads(json.dumps(network_args(config))).items()}
    reference = lycoris.kohya.create_network(
        1.0, config.rank, config.alpha, None, theirs["text"], theirs["unet"], **arguments
    )
    reference.apply_to(theirs["text"], theirs["unet"], theirs["text"] is not None, True)
    expected = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected
    alphas = {name: tensor.item() for name, tensor in reference.state_dict().items() if name.endswith(".alpha")}
    assert {name: tensors[name].item() for name in alphas} == alphas

    reference.load_state_dict(tensors)
    reference.eval()
    network.train(False)
    same_forward(unet, encoder, theirs)


def network_of(config: Config, unet: nn.Module, encoder: nn.Module) -> LoraNetwork:
    """Ours, on these modules, with every weight drawn anew."""
    base: Any = SimpleNamespace(family="sd15")
    plan: Any = SimpleNamespace(config=config, base=base)
    encoders: Any = SimpleNamespace(encoders=[encoder])
    network = LoraNetwork(targets(plan, family_of(base), unet, encoders), layer_maker(config))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    return network


def same_forward(unet: nn.Module, encoder: nn.Module, theirs: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randint(0, 49_000, (2, 77), generator=generator)
    noisy, times = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([10, 700])
    with torch.no_grad():
        context = encoder(tokens).last_hidden_state
        if theirs["text"] is not None:
            torch.testing.assert_close(context, theirs["text"](tokens).last_hidden_state, atol=1e-4, rtol=1e-4)
        found, expected = (model(noisy, times, context).sample for model in (unet, theirs["unet"]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

"""Blocks that wait in host memory: which ones, that they are there in time, and that nothing else comes out."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lora_trainer.training import swapping
from lora_trainer.training.held import HeldLinear, as_is, held, hold, put_into
from lora_trainer.training.lora import LoraLayer
from lora_trainer.training.swapping import Copier, HostMemory, Swap, stream, swap_blocks, waiting

CPU = torch.device("cpu")
WIDTH = 16


# ---- which blocks wait


def test_half_of_them_are_double_blocks_as_in_sd_scripts() -> None:
    for swapped, double, single in ((0, 0, 0), (1, 0, 2), (2, 1, 2), (16, 8, 16), (35, 17, 36)):
        names = waiting(19, 38, swapped)
        assert sum(name.startswith("double_blocks.") for name in names) == double
        assert sum(name.startswith("single_blocks.") for name in names) == single
    assert waiting(1, 2, 35) == {"double_blocks.0", "single_blocks.0", "single_blocks.1"}


@given(st.integers(1, 40), st.data())
def test_those_that_wait_lie_apart(of: int, data: Any) -> None:
    count = data.draw(st.integers(0, of))
    places = swapping._apart(count, of)
    assert len(places) == count and places == sorted({*places}) and all(0 <= at < of for at in places)
    gaps = [right - left for left, right in zip(places, places[1:])]
    assert not gaps or max(gaps) - min(gaps) <= 1


# ---- that they are there


class Block(nn.Module):
    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.norm = nn.LayerNorm(WIDTH)
        self.first, self.second = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.tanh(self.first(self.norm(x))))


class Stack(nn.Module):
    """A transformer as far as swapping is concerned; each Linear with a LoRA."""

    def __init__(self, double: int, single: int):
        super().__init__()
        self.double_blocks = nn.ModuleList(Block(at) for at in range(double))
        self.single_blocks = nn.ModuleList(Block(100 + at) for at in range(single))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.double_blocks, *self.single_blocks):
            x = checkpoint(block, x, use_reentrant=False) if torch.is_grad_enabled() else block(x)
        return x


def with_loras(model: Stack) -> Stack:
    for block in (*model.double_blocks, *model.single_blocks):
        for name in ("first", "second"):
            layer = LoraLayer(getattr(block, name), 2, 1.0)
            layer.initialise(torch.Generator().manual_seed(5))
            layer.lora_up.data.normal_(generator=torch.Generator().manual_seed(6))
            setattr(block, name, layer)
    return model


def step(model: Stack) -> list[Tensor]:
    """The gradients of one step."""
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    x = x.to(next(parameter.device for parameter in model.parameters() if parameter.requires_grad))
    model(x).square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    model.zero_grad()
    return [gradient for gradient in gradients if gradient is not None]


class Watched(Copier):
    """Remembers what was copied, and how much of it was there at the most."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.sizes: list[int] = []
        self.most = 0
        self._alive: list[weakref.ref[Any]] = []

    def copies(self, groups: Sequence[Sequence[Tensor]]) -> tuple[list[tuple[Tensor, ...]], Any]:
        there, copied = super().copies(groups)
        self._alive += [weakref.ref(tensor.untyped_storage()) for group in there for tensor in group]
        self.sizes.append(sum(tensor.nbytes for group in there for tensor in group))
        self.most = max(self.most, self.there())
        return there, copied

    def there(self) -> int:
        return sum(storage.nbytes() for alive in self._alive if (storage := alive()) is not None)


@pytest.fixture
def copier(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched(CPU)
    monkeypatch.setattr(swapping, "Copier", lambda device: watched)
    return watched


def block_bytes(kind: str) -> int:
    numbers = 2 * WIDTH * 2 * WIDTH
    return {"": 4 * numbers, "fp8": numbers, "nf4": numbers // 2 + 4 * numbers // 64}[kind]


@pytest.mark.parametrize("kind", ["", "fp8", "nf4"])
@pytest.mark.parametrize(("count", "waits"), [(2, 3), (5, 7), (12, 8)])
def test_gradients_are_those_of_a_model_that_stays(kind: str, count: int, waits: int, copier: Watched) -> None:
    model = Stack(3, 5)
    if kind:
        hold(model, kind)
    expected = step(with_loras(copy.deepcopy(model)))
    with_loras(model)
    swap_blocks(model, count, CPU)
    for steps in range(1, 4):
        assert all(map(torch.equal, step(model), expected))
        # Where a pass turns round, the two blocks at that end are there yet.
        assert len(copier.sizes) == waits + (2 * steps - 1) * (waits - 2)
    gc.collect()
    assert {*copier.sizes} == {block_bytes(kind)}
    assert copier.most == copier.there() == 2 * block_bytes(kind)


def test_previews_go_round_and_a_step_after_them_is_right(copier: Watched) -> None:
    model = with_loras(Stack(2, 4))
    expected = step(model)
    x = torch.ones(1, WIDTH)
    with torch.no_grad():
        shown = model(x)
        swap_blocks(model, 35, CPU)
        for _ in range(3):
            torch.testing.assert_close(model(x), shown, atol=0, rtol=0)
    assert len(copier.sizes) == 3 * 6 + 1 and copier.most == 2 * block_bytes("")
    assert all(map(torch.equal, step(model), expected))
    with torch.no_grad():
        torch.testing.assert_close(model(x), shown, atol=0, rtol=0)


def test_the_next_block_is_asked_for_before_this_one_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    model = Stack(1, 3)
    real_bring, real_forward = Swap._bring, Block.forward

    def bring(self: Swap, at: int) -> None:
        order.append(f"bring {at}" if at not in self._there else "")
        real_bring(self, at)

    def forward(self: Block, x: Tensor) -> Tensor:
        order.append(f"compute {[*model.double_blocks, *model.single_blocks].index(self)}")
        return real_forward(self, x)

    monkeypatch.setattr(Swap, "_bring", bring)
    monkeypatch.setattr(Block, "forward", forward)
    swap_blocks(model, 35, CPU)
    with torch.no_grad():
        model(torch.ones(1, WIDTH))
    assert [each for each in order if each] == [
        "bring 0", "bring 1", "compute 0", "bring 2", "compute 1", "bring 3", "compute 2", "bring 0", "compute 3",
    ]  # fmt: skip


def test_another_count_is_taken_over_by_the_same_model(copier: Watched) -> None:
    model = with_loras(Stack(2, 4))
    expected = step(model)
    swap = swap_blocks(model, 2, CPU)
    step(model)
    swap.end()
    assert all(layer.here is None for layer in model.modules() if isinstance(layer, HeldLinear))
    copier.sizes.clear()
    swap = swap_blocks(model, 4, CPU)
    assert all(map(torch.equal, step(model), expected)) and len(copier.sizes) == 6 + 4
    swap.end()
    copier.sizes.clear()
    swap_blocks(model, 0, CPU)
    assert all(map(torch.equal, step(model), expected)) and not copier.sizes


def test_layers_without_a_gradient_below_are_waited_for(copier: Watched) -> None:
    """The backward pass ends before the first block where only the last ones are trained."""
    model = with_loras(Stack(1, 4))
    trained = [*model.single_blocks[2].parameters(), *model.single_blocks[3].parameters()]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.requires_grad and any(parameter is each for each in trained))
    expected = step(model)
    swap_blocks(model, 35, CPU)
    assert len(expected) == 8
    for _ in range(2):
        assert all(map(torch.equal, step(model), expected))


# ---- where they wait


def test_the_device_holds_only_what_does_not_wait() -> None:
    """On the meta device, which stands for a GPU: nothing else than the weights stays behind."""
    meta = torch.device("meta")
    model = with_loras(Stack(2, 4))
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            put_into(layer.base, as_is(layer.base.weight), torch.float32)
    waits = {name.removesuffix(".home.0") for name, _ in model.named_parameters() if name.endswith(".home.0")}
    swap_blocks(model, 2, meta)
    away = waiting(2, 4, 2)
    for name in waits:
        device = held(cast(nn.Linear, model.get_submodule(name))).tensors[0].device.type
        assert device == ("cpu" if ".".join(name.split(".")[:2]) in away else "meta")


def test_a_whole_text_encoder_is_streamed(copier: Watched) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        d_model=64, d_ff=128, d_kv=64, num_heads=1, num_layers=3, vocab_size=50, feed_forward_proj="gated-gelu"
    )
    torch.manual_seed(0)
    encoder = transformers.T5EncoderModel(config).eval().requires_grad_(False)
    tokens = torch.tensor([[3, 7, 1, 0]])
    with torch.no_grad():
        expected = encoder(tokens)[0]
        stream(encoder, encoder.encoder.block, CPU)
        found = [encoder(tokens)[0] for _ in range(2)]
    assert all(torch.equal(each, expected) for each in found)
    assert len(copier.sizes) == 2 * 3 + 1 and copier.most == 2 * max(copier.sizes)


def test_what_is_streamed_keeps_nothing_but_its_blocks_in_host_memory() -> None:
    model = Stack(1, 2)
    stream(model, model.single_blocks, torch.device("meta"))
    there = {name for name, parameter in model.named_parameters() if parameter.device.type == "meta"}
    assert {name for name, _ in model.named_parameters()} - there == {
        f"single_blocks.{at}.{layer}.home.0" for at in range(2) for layer in ("first", "second")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.uint8])
def test_host_memory_is_taken_in_slabs(dtype: torch.dtype) -> None:
    memory = HostMemory(pinned=False, slab=1024)
    tensors = [torch.arange(count).remainder(7).to(dtype) for count in (3, 100, 5, 900, 1, 2000)]
    copies = [memory.copy_of(tensor) for tensor in tensors]
    assert all(torch.equal(left.float(), right.float()) for left, right in zip(copies, tensors))
    assert all(copied.data_ptr() % swapping.ALIGNED == copies[0].data_ptr() % swapping.ALIGNED for copied in copies[:2])
    assert {copied.untyped_storage().nbytes() for copied in copies} <= {
        1024, *(tensor.nbytes for tensor in tensors if tensor.nbytes > 1024)
    }  # fmt: skip


def test_memory_that_cannot_be_pinned_is_taken_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = torch.empty, []

    def empty(*shape: Any, **options: Any) -> Tensor:
        if options.pop("pin_memory", False):
            asked.append(shape)
            raise RuntimeError("CUDA error: out of memory")
        return real(*shape, **options)

    monkeypatch.setattr(torch, "empty", empty)
    memory = HostMemory(pinned=True, slab=64)
    tensor = torch.ones(40)
    assert torch.equal(memory.copy_of(tensor), tensor) and torch.equal(memory.copy_of(tensor), tensor)
    assert len(asked) == 1


# ---- a GPU's streams, as the calls that are made of them


def test_copies_come_between_what_used_their_memory_and_what_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Stream:
        def __init__(self, name: str):
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

        def record_event(self) -> str:
            told.append(f"{self.name} marked")
            return "event"

        def wait_event(self, event: str) -> None:
            told.append(f"{self.name} waits for {event}")

        def __enter__(self) -> None:
            told.append(f"{self.name} on")

        def __exit__(self, *unused: object) -> None:
            told.append(f"{self.name} off")

    cuda = SimpleNamespace(
        Stream=lambda device: Stream("side"), current_stream=lambda device: Stream("main"), stream=lambda each: each
    )
    copier = Copier(CPU)
    monkeypatch.setattr(torch, "cuda", cuda)
    copier._stream = Stream("side")  # type: ignore[assignment]
    (there,), copied = copier.copies([[torch.ones(3)]])
    assert torch.equal(there[0], torch.ones(3))
    copier.wait(copied)
    assert told == ["side waits for main", "side on", "side off", "side marked", "main waits for event"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("kind", ["", "fp8", "nf4"])
def test_on_a_gpu_the_gradients_are_those_of_a_model_that_stays(kind: str) -> None:
    device = torch.device("cuda")
    model = Stack(3, 5).to(device)
    if kind:
        hold(model, kind)
    expected = step(with_loras(copy.deepcopy(model)))
    swap_blocks(with_loras(model), 35, device)
    homes = [tensor for layer in model.modules() if isinstance(layer, HeldLinear) for tensor in layer.home]
    assert homes and all(tensor.is_pinned() for tensor in homes)
    for _ in range(5):
        assert all(map(torch.equal, step(model), expected))

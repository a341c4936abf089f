"""The modules of a LoRA for a whole Flux: what ours makes on the meta device, and what the format says there are."""

from __future__ import annotations

from collections.abc import Iterator

WIDE, MLP = 3072, 12288
DOUBLE, SINGLE = 19, 38
Shapes = dict[str, tuple[int, ...]]


def expected(rank: int) -> Shapes:
    """Each tensor of a LoRA of all Linear layers in FLUX.1's blocks, as sd-scripts, diffusers and Forge name them."""
    layers = {name: sizes for block in range(DOUBLE) for name, sizes in _double(block)}
    layers |= {name: sizes for block in range(SINGLE) for name, sizes in _single(block)}
    shapes: Shapes = {}
    for name, (inside, outside) in layers.items():
        shapes[f"lora_unet_{name}.lora_down.weight"] = (rank, inside)
        shapes[f"lora_unet_{name}.lora_up.weight"] = (outside, rank)
        shapes[f"lora_unet_{name}.alpha"] = ()
    return shapes


def _double(block: int) -> Iterator[tuple[str, tuple[int, int]]]:
    for stream in ("img", "txt"):
        start = f"double_blocks_{block}_{stream}"
        yield f"{start}_mod_lin", (WIDE, 6 * WIDE)
        yield f"{start}_attn_qkv", (WIDE, 3 * WIDE)
        yield f"{start}_attn_proj", (WIDE, WIDE)
        yield f"{start}_mlp_0", (WIDE, MLP)
        yield f"{start}_mlp_2", (MLP, WIDE)


def _single(block: int) -> Iterator[tuple[str, tuple[int, int]]]:
    start = f"single_blocks_{block}"
    yield f"{start}_linear1", (WIDE, 3 * WIDE + MLP)
    yield f"{start}_linear2", (WIDE + MLP, WIDE)
    yield f"{start}_modulation_lin", (WIDE, 3 * WIDE)


def made(rank: int) -> Shapes:
    """Each tensor of the LoRA that a training of FLUX.1 dev would save; no weight is ever in memory."""
    import torch

    from lora_trainer.inspecting import FAMILIES
    from lora_trainer.training.families.flux.family import Flux
    from lora_trainer.training.families.flux.transformer import FluxConfig, FluxTransformer
    from lora_trainer.training.lora import LoraNetwork, Target

    config = FluxConfig(
        hidden=WIDE, mlp=MLP, context=4096, pooled=768, double_blocks=DOUBLE, single_blocks=SINGLE, guidance=True
    )
    with torch.device("meta"):
        transformer = FluxTransformer(config)
        names = Flux(FAMILIES["flux"]).denoiser_targets(transformer)
        network = LoraNetwork([Target(transformer, module, key, rank, 1.0) for module, key in names.items()])
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def modules(shapes: Shapes) -> int:
    return len({key.partition(".")[0] for key in shapes})

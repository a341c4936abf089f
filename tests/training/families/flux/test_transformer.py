"""The transformer against diffusers' own, which splits and names the layers otherwise."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from torch import Tensor

from lora_trainer.training.families.flux.transformer import FluxConfig, FluxTransformer, packed, sinusoids, unpacked
from tests.flux_files import MINIATURE, Sizes, transformer_tensors

WIDER = Sizes(hidden=256, mlp=1024, double=2, single=1, context=32, pooled=48)
PUBLISHED = 3072  # the width that diffusers' converter splits the single blocks' first layer by


def ours_of(tensors: Mapping[str, Tensor]) -> FluxTransformer:
    model = FluxTransformer(FluxConfig.of({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
    model.load_state_dict(dict(tensors))
    return model.eval().requires_grad_(False)


def theirs_of(tensors: Mapping[str, Tensor], sizes: Sizes, guidance: bool) -> FluxTransformer2DModel:
    """Its converter cuts at the published width, so what is narrower is spread over that and cut again."""
    model = FluxTransformer2DModel(
        num_layers=sizes.double,
        num_single_layers=sizes.single,
        num_attention_heads=sizes.hidden // 128,
        joint_attention_dim=sizes.context,
        pooled_projection_dim=sizes.pooled,
        guidance_embeds=guidance,
    )
    wide = {name: spread(name, tensor, sizes) for name, tensor in tensors.items()}
    converted = convert_flux_transformer_checkpoint_to_diffusers(wide)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: tensor[: shapes[name][0]] for name, tensor in converted.items()})
    return model.eval().requires_grad_(False)


def spread(name: str, tensor: Tensor, sizes: Sizes) -> Tensor:
    if "linear1" not in name:
        return tensor
    parts = tensor.split([sizes.hidden] * 3 + [sizes.mlp])
    out = tensor.new_zeros(7 * PUBLISHED, *tensor.shape[1:])
    for place, part in enumerate(parts):
        out[place * PUBLISHED : place * PUBLISHED + len(part)] = part
    return out


def inputs(sizes: Sizes, batch: int, height: int, width: int, tokens: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {
        "latents": torch.randn(batch, 16, height, width),
        "timesteps": torch.tensor([731.0, 12.5, 1000.0])[:batch],
        "context": torch.randn(batch, tokens, sizes.context),
        "pooled": torch.randn(batch, sizes.pooled),
    }


def predicted(
    model: FluxTransformer2DModel, given: Mapping[str, Tensor], guidance: Tensor | None, mask: Tensor | None = None
) -> Tensor:
    """diffusers' model with the packing and the places of its pipeline, written out."""
    latents = given["latents"]
    batch, channels, height, width = latents.shape
    rows, columns = height // 2, width // 2
    tokens = latents.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 64)
    places = torch.tensor([[0.0, row, column] for row in range(rows) for column in range(columns)])
    out = model(
        tokens,
        given["context"],
        given["pooled"],
        given["timesteps"] / 1000,
        places,
        torch.zeros(given["context"].shape[1], 3),
        guidance,
        joint_attention_kwargs={"attention_mask": mask},
        return_dict=False,
    )[0]
    return out.view(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(latents.shape)


@pytest.mark.parametrize("sizes", [MINIATURE, WIDER])
@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_it_predicts_what_diffusers_does(sizes: Sizes, variant: str) -> None:
    tensors = transformer_tensors(sizes, variant)
    given = inputs(sizes, 3, 6, 10)
    guidance = torch.tensor([1.0, 3.5, 2.0]) if variant == "dev" else None
    theirs = predicted(theirs_of(tensors, sizes, variant == "dev"), given, guidance)
    ours = ours_of(tensors)(**given, guidance=guidance)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert theirs.std() > 0.1


def test_what_a_mask_hides_might_as_well_not_be_there() -> None:
    model = ours_of(transformer_tensors())
    given = inputs(MINIATURE, 2, 4, 6)
    mask = torch.tensor([[True] * 5 + [False] * 2, [True] * 2 + [False] * 5])
    masked = model(**given, guidance=torch.full((2,), 3.5), mask=mask)
    for sample, tokens in enumerate((5, 2)):
        alone = {name: tensor[sample : sample + 1] for name, tensor in given.items()}
        alone["context"] = alone["context"][:, :tokens]
        torch.testing.assert_close(masked[sample : sample + 1], model(**alone, guidance=torch.tensor([3.5])))
    assert not torch.allclose(masked, model(**given, guidance=torch.full((2,), 3.5)), atol=1e-3)


def test_a_mask_hides_what_it_does_in_diffusers() -> None:
    tensors = transformer_tensors()
    given, theirs = inputs(MINIATURE, 2, 4, 4), theirs_of(transformer_tensors(), MINIATURE, True)
    mask = torch.tensor([[True] * 5 + [False] * 2, [True] * 7])
    hidden = torch.cat([mask, mask.new_ones(2, 4)], 1)[:, None, None]
    guidance = torch.full((2,), 2.0)
    with_mask = predicted(theirs, given, guidance, hidden)
    torch.testing.assert_close(ours_of(tensors)(**given, guidance=guidance, mask=mask), with_mask, rtol=1e-5, atol=1e-5)


def test_blocks_computed_again_give_the_same_gradients() -> None:
    model, given = ours_of(transformer_tensors(variant="schnell")), inputs(MINIATURE, 2, 4, 6)
    names = ("double_blocks.0.txt_attn.qkv.weight", "single_blocks.1.linear2.weight")
    weights = [model.get_parameter(name).requires_grad_(True) for name in names]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(**given).square().mean(), weights)

    kept = gradients()
    runs: list[int] = []
    model.double_blocks[0].register_forward_pre_hook(lambda *_: runs.append(1))
    model.enable_gradient_checkpointing()
    for again, before in zip(gradients(), kept, strict=True):
        assert before.abs().max() > 0
        torch.testing.assert_close(again, before)
    assert len(runs) == 2


def test_in_bfloat16_it_predicts_nearly_the_same() -> None:
    model, given = ours_of(transformer_tensors()), inputs(MINIATURE, 2, 8, 8)
    exact = model(**given, guidance=torch.full((2,), 3.5))
    rounded = {name: tensor if name == "timesteps" else tensor.bfloat16() for name, tensor in given.items()}
    rough = model.bfloat16()(**rounded, guidance=torch.full((2,), 3.5))
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).std() < 0.02 * exact.std()


def test_timesteps_a_tenth_apart_are_told_apart_in_bfloat16() -> None:
    """diffusers' pipeline rounds the timestep itself, and 730.9 and 731 are the same in bfloat16."""
    told = sinusoids(torch.tensor([730.9, 731.0]))
    assert told.dtype == torch.float32
    assert (told[0] - told[1]).abs().max() > 0.05


def test_a_model_with_guidance_has_to_be_told_a_scale() -> None:
    with pytest.raises(ValueError, match="guidance"):
        ours_of(transformer_tensors())(**inputs(MINIATURE, 1, 4, 4))


def test_tokens_are_squares_of_four_latent_pixels() -> None:
    latents = torch.arange(16 * 4 * 6.0).view(1, 16, 4, 6)
    tokens = packed(latents)
    assert tokens.shape == (1, 6, 64)
    assert tokens[0, 4, 4:8].tolist() == latents[0, 1, 2:4, 2:4].flatten().tolist()
    assert torch.equal(unpacked(tokens, 2, 3), latents)


def test_a_width_that_is_no_multiple_of_a_head_is_no_model() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in transformer_tensors().items()} | {"img_in.bias": (192,)}
    with pytest.raises(ValueError, match="192"):
        FluxConfig.of(shapes)

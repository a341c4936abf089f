"""A LoRA to start from, in the layouts that diffusers' own converters and PEFT write, against closed forms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_conversion_utils import (
    _convert_non_diffusers_lora_to_diffusers,
    _maybe_map_sgm_blocks_to_diffusers,
)
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_kohya,
    convert_unet_state_dict_to_peft,
)
from diffusers.utils.state_dict_utils import convert_state_dict_to_peft
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from lora_trainer.config import BadInput, Config
from lora_trainer.inspecting import FAMILIES
from lora_trainer.inspecting.header import read_header
from lora_trainer.training.families.sd import StableDiffusion
from lora_trainer.training.lora import LoraNetwork, Target
from lora_trainer.training.start import key_of, read_lora, start_from
from tests.make_base import build

Tensors = dict[str, Tensor]
LINEAR = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2"
CONV = "lora_unet_mid_block_resnets_0_conv1"
UNET: dict[str, Any] = {"layers_per_block": 2, "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",)}
CONFIG = Config(rank=4, alpha=2.0)


@cache
def kohya(family: str) -> Tensors:
    """Every key of a full model's LoCon, each with numbers of its own."""
    with torch.device("meta"):
        models = build(family, small=False)
    names = StableDiffusion(FAMILIES[family])
    keys = [*names.denoiser_targets(models.unet, convolutions=True).values()]
    for place, encoder in enumerate(models.text_encoders):
        keys += names.text_encoder_targets(encoder, place).values()
    tensors: Tensors = {}
    for number, key in enumerate(keys):
        tensors[f"{key}.lora_down.weight"] = torch.full((2, 3), float(number))
        tensors[f"{key}.lora_up.weight"] = torch.full((3, 2), -float(number))
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
    return tensors


def diffusers_old(tensors: Tensors, family: str) -> Tensors:
    """Attention processors' names and `lora_linear_layer`; by diffusers' converter, which leaves the alphas aside."""
    sgm = _maybe_map_sgm_blocks_to_diffusers(dict(tensors), type("Config", (), UNET)) if family == "sdxl" else tensors
    return _convert_non_diffusers_lora_to_diffusers(dict(sgm))[0]


def parted(tensors: Tensors, convert_unet: Callable[..., Tensors], convert_text: Callable[..., Tensors]) -> Tensors:
    """Each part's tensors converted by themselves, under the part's prefix."""
    found: Tensors = {}
    for part in ("unet", "text_encoder", "text_encoder_2"):
        own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        if own:
            convert = convert_unet if part == "unet" else convert_text
            found |= {f"{part}.{name}": tensor for name, tensor in convert(own).items()}
    return found


def peft(tensors: Tensors, family: str) -> Tensors:
    return parted(diffusers_old(tensors, family), convert_unet_state_dict_to_peft, convert_state_dict_to_peft)


def diffusers(tensors: Tensors, family: str) -> Tensors:
    """`lora.down` and `lora_linear_layer.down`, as diffusers wrote before it took PEFT's names."""

    def unet(own: Tensors) -> Tensors:
        return {n.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): t for n, t in own.items()}

    return parted(peft(tensors, family), unet, convert_state_dict_to_diffusers)


def kohya_again(tensors: Tensors, family: str) -> Tensors:
    """sd-scripts' names over diffusers' paths, SDXL's U-Net too; `lora_te1_` even for the only text encoder."""
    return convert_state_dict_to_kohya(peft(tensors, family))


def in_peft(tensors: Tensors, family: str) -> Tensors:
    """As PEFT's own file, of all parts at once."""
    return {
        ".".join((name.partition(".")[0], "base_model.model", name.partition(".")[2])): tensor
        for name, tensor in peft(tensors, family).items()
    }


@pytest.mark.parametrize("layout", [diffusers_old, peft, diffusers, kohya_again, in_peft])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_every_layout_is_read_as_ours(tmp_path: Path, layout: Callable[[Tensors, str], Tensors], family: str) -> None:
    tensors = kohya(family)
    save_file({name: t.clone() for name, t in layout(tensors, family).items()}, tmp_path / "a.safetensors")
    read = read_lora(read_header(tmp_path / "a.safetensors"), FAMILIES[family], UNET)

    assert {f"{key}.{what}" for key, own in read.items() for what in own} == tensors.keys()
    for key, own in read.items():
        for what, tensor in own.items():
            assert torch.equal(tensor, tensors[f"{key}.{what}"]), (key, what)


# As LyCORIS's own wrapper (SimpleTuner), ComfyUI and models unknown here name their modules.
@pytest.mark.parametrize(
    ("module", "family", "key"),
    [
        ("lycoris_down_blocks_0_attentions_0_proj_in", "sd15", "lora_unet_down_blocks_0_attentions_0_proj_in"),
        ("lycoris_mid_block_attentions_0_proj_in", "sdxl", "lora_unet_middle_block_1_proj_in"),
        ("diffusion_model.middle_block.1.proj_in", "sdxl", "lora_unet_middle_block_1_proj_in"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "sd2", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
        ("text_model.encoder.layers.0.mlp.fc1", "sdxl", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "sd15", "lora_te2_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_unet_up_blocks_9_upsamplers_0_conv", "sdxl", "lora_unet_up_blocks_9_upsamplers_0_conv"),
        ("lora_unet_mid_block_upsamplers_0_conv", "sdxl", "lora_unet_mid_block_upsamplers_0_conv"),
        ("transformer.transformer_blocks.0.attn.to_q", "sdxl", "transformer.transformer_blocks.0.attn.to_q"),
        ("transformer.transformer_blocks.0.attn.to_q", "flux", "transformer.transformer_blocks.0.attn.to_q"),
        ("diffusion_model.single_blocks.3.modulation.lin", "flux", "lora_unet_single_blocks_3_modulation_lin"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "flux", "lora_unet_double_blocks_0_img_attn_qkv"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "flux", "lora_te1_text_model_encoder_layers_0_mlp_fc1"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "sdxl", "lora_unet_double_blocks_0_img_attn_qkv"),
    ],
)
def test_keys_of_other_names(module: str, family: str, key: str) -> None:
    assert key_of(module, FAMILIES[family], UNET) == key


# ---- what a network computes once it has started from a file


def network_of(rank: int, alpha: float) -> LoraNetwork:
    """A Linear and a 3x3 convolution under keys of the U-Net's, drawn fresh."""
    model = nn.ModuleDict({"linear": nn.Linear(6, 8), "conv": nn.Conv2d(4, 5, 3)})
    network = LoraNetwork(Target(model, module, key, rank, alpha) for module, key in zip(model, (LINEAR, CONV)))
    network.initialise(lambda key: torch.Generator().manual_seed(len(key)))
    return network


def effect(network: LoraNetwork, key: str) -> Tensor:
    """What a layer adds to the frozen weight, by what it would save."""
    saved = {name.removeprefix(f"{key}."): tensor for name, tensor in network.state_dict().items()}
    down, up = saved["lora_down.weight"], saved["lora_up.weight"]
    return torch.einsum("or,r...->o...", up.flatten(1), down) * saved["alpha"] / len(down)


def started(path: Path, network: LoraNetwork, config: Config = CONFIG, family: str = "sd15") -> list[str]:
    return start_from(path, network, config, FAMILIES[family], UNET)


def random_lora(rank: int, alpha: float | None) -> Tensors:
    draw = torch.Generator().manual_seed(rank)
    shapes = {f"{LINEAR}.lora_down.weight": (rank, 6), f"{LINEAR}.lora_up.weight": (8, rank)}
    shapes |= {f"{CONV}.lora_down.weight": (rank, 4, 3, 3), f"{CONV}.lora_up.weight": (5, rank, 1, 1)}  # type: ignore[dict-item]
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return tensors | ({} if alpha is None else {f"{key}.alpha": torch.tensor(alpha) for key in (LINEAR, CONV)})


@settings(deadline=None, max_examples=40)
@given(
    rank=st.integers(1, 6),
    alpha=st.none() | st.floats(0.1, 64),
    run_rank=st.integers(1, 6),
    run_alpha=st.floats(0.1, 64),
)
def test_the_effect_is_the_files_whatever_rank_and_alpha(
    tmp_path_factory: pytest.TempPathFactory, rank: int, alpha: float | None, run_rank: int, run_alpha: float
) -> None:
    path, file = tmp_path_factory.mktemp("loras") / "a.safetensors", random_lora(rank, alpha)
    save_file(file, path)
    network = network_of(run_rank, run_alpha)
    if rank > run_rank:
        with pytest.raises(
            BadInput, match=rf'start_lora = "a.safetensors": is a LoCon of rank {rank}, which does not fit'
        ):
            started(path, network)
        return
    assert started(path, network) == []
    scale = 1.0 if alpha is None else alpha / rank
    for key in (LINEAR, CONV):
        down, up = file[f"{key}.lora_down.weight"], file[f"{key}.lora_up.weight"].flatten(1)
        expected = scale * torch.einsum("or,r...->o...", up, down)
        torch.testing.assert_close(effect(network, key), expected, atol=1e-5, rtol=1e-5)
    # What is left of a larger rank can learn: it is drawn, and only its upper half is zero.
    assert all(layer.weights()[0].flatten(1).norm(dim=1).min() > 0 for layer in network.layers.values())


def test_a_middle_factor_is_multiplied_in(tmp_path: Path) -> None:
    """LyCORIS's CP decomposition of a convolution, by the product that it defines."""
    down, middle, up = torch.randn(3, 4, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(5, 3, 1, 1)
    names = ("lora_down", "lora_mid", "lora_up")
    save_file({f"{CONV}.{n}.weight": t for n, t in zip(names, (down, middle, up))}, tmp_path / "a.safetensors")
    network = network_of(4, 1.0)
    (remark,) = started(tmp_path / "a.safetensors", network)
    expected = torch.einsum("oa,abhw,bi->oihw", up.flatten(1), middle, down.flatten(1))
    torch.testing.assert_close(effect(network, CONV), expected, atol=1e-5, rtol=1e-5)
    assert remark == "a.safetensors has no weights that fit 1 layers; these start fresh."


@pytest.mark.parametrize("saved_by", ["PEFT", "diffusers"])
@pytest.mark.parametrize("rslora", [False, True])
def test_the_scale_that_peft_keeps_outside_its_tensors(tmp_path: Path, saved_by: str, rslora: bool) -> None:
    unet = build("sd15", small=True).unet
    config = LoraConfig(
        r=4, lora_alpha=12, use_rslora=rslora, target_modules=["to_q", "to_k"], alpha_pattern={"attn2.to_k": 20}
    )
    ours, names = copy.deepcopy(unet), StableDiffusion(FAMILIES["sd15"]).denoiser_targets(unet)
    trained = {name: key for name, key in names.items() if name.endswith(("to_q", "to_k"))}
    network = LoraNetwork(Target(ours, name, key, 4, 1.0) for name, key in trained.items())
    theirs = get_peft_model(unet, config, autocast_adapter_dtype=False)
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter)
    if saved_by == "PEFT":
        theirs.save_pretrained(tmp_path)
        file = tmp_path / "adapter_model.safetensors"
    else:
        layers = {name.removeprefix("base_model.model."): t for name, t in get_peft_model_state_dict(theirs).items()}
        metadata = {**config.to_dict(), "target_modules": ["to_q", "to_k"]}
        StableDiffusionPipeline.save_lora_weights(tmp_path, layers, unet_lora_adapter_metadata=metadata)
        file = tmp_path / "pytorch_lora_weights.safetensors"
    assert started(file, network) == []
    for name, key in trained.items():
        their = theirs.base_model.model.get_submodule(name).get_delta_weight("default")
        torch.testing.assert_close(effect(network, key), their, atol=1e-4, rtol=1e-4)


# ---- what does not fit


def test_what_the_run_does_not_train_is_said(tmp_path: Path) -> None:
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    more = {f"{text}.lora_down.weight": torch.ones(4, 6), f"{text}.lora_up.weight": torch.ones(8, 4)}
    save_file(random_lora(4, 4.0) | more, tmp_path / "a.safetensors")
    assert started(tmp_path / "a.safetensors", network_of(4, 1.0)) == [
        "a.safetensors has modules that this run does not train (text encoder: 1); these are left out."
    ]
    save_file(more, tmp_path / "b.safetensors", {"ss_base_model_version": "sd_v1"})
    with pytest.raises(BadInput, match='is a LoRA of rank 4, of which this run trains no module. Set .*"text_encoder"'):
        started(tmp_path / "b.safetensors", network_of(4, 1.0))


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        (
            {f"{LINEAR}.hada_{n}": torch.ones(2, 2) for n in ("w1_a", "w1_b", "w2_a", "w2_b")},
            {"ss_base_model_version": "sd_v1"},
            'is a LoHa of rank 2, which does not fit a LoRA of rank 4. Set kind = "LoHa", rank = 2, train = "unet", or',
        ),
        (
            {f"{LINEAR}.oft_blocks": torch.ones(2, 3, 3)},
            {},
            "is a OFT, which does not fit a LoRA of rank 4. Choose another LoRA.",
        ),
        (
            random_lora(4, 1.0) | {f"{LINEAR}.diff_b": torch.ones(8)},
            {},
            "is a LoCon of rank 4, which does not fit a LoRA of rank 4. Choose another LoRA.",
        ),
        (
            random_lora(4, 1.0),
            {"ss_base_model_version": "sdxl_base_v1-0"},
            "is for Stable Diffusion XL, and the base is Stable Diffusion 1.x. Choose a LoRA of the base's family.",
        ),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, 4, 3, 3)}, {}, "is a base model, not a LoRA."),
        ({"emb_params": torch.ones(2, 768)}, {}, "is a textual inversion embedding, not a LoRA."),
        ({"320.0.linear.0.weight": torch.ones(640, 320)}, {}, "is a hypernetwork, not a LoRA."),
        ({}, {}, "is a file without weights, not a LoRA."),
        (random_lora(4, None), {"lora_adapter_metadata": "{"}, "has damaged lora_adapter_metadata"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(tmp_path: Path, tensors: Tensors, metadata: dict[str, str], said: str) -> None:
    save_file(tensors, tmp_path / "a.safetensors", metadata or None)
    with pytest.raises(BadInput) as caught:
        started(tmp_path / "a.safetensors", network_of(4, 1.0))
    (problem,) = caught.value.problems
    assert str(problem).startswith('start_lora = "a.safetensors": ' + said)


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    save_file(random_lora(4, 1.0), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(data[:-10])
    with pytest.raises(BadInput, match='start_lora = "a.safetensors": is cut off'):
        started(tmp_path / "a.safetensors", network_of(4, 1.0))


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.dictionaries(
        st.sampled_from(["lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha", "hada_w1_b"]),
        st.lists(st.integers(0, 4), max_size=4),
        min_size=1,
    )
)
def test_no_shape_breaks_it(tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, Iterable[int]]) -> None:
    path = tmp_path_factory.mktemp("loras") / "a.safetensors"
    save_file({f"{CONV}.{what}": torch.ones(tuple(shape)) for what, shape in shapes.items()}, path)
    try:
        started(path, network_of(2, 1.0))
    except BadInput as error:
        assert [problem.setting for problem in error.problems] == ["start_lora"]

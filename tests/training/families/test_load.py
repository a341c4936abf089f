from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from lora_trainer.config import BadInput
from lora_trainer.inspecting import FAMILIES as FAMILY_FACTS
from lora_trainer.inspecting import identify
from lora_trainer.training.families import configs
from lora_trainer.training.families.load import load_text_encoders, load_unet, load_vae
from tests.make_base import assembled, build, original_tensors

FAMILIES = ("sd15", "sd2", "sdxl")


def unet_output(unet, text_width):
    """A forward pass at fixed inputs, with channels last; the added conditions are read by SDXL alone."""
    unet = copy.deepcopy(unet).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    width = unet.config.projection_class_embeddings_input_dim
    added = {
        "text_embeds": torch.randn(1, width - 6 * 256 if width else 1, generator=generator),
        "time_ids": torch.tensor([[64.0, 48, 0, 8, 64, 64]]),
    }
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    context = torch.randn(1, 77, text_width, generator=generator)
    with torch.no_grad():
        return unet(latents, 500, context, added_cond_kwargs=added).sample


def assert_same_weights(loaded, source):
    state = source.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(weight, state[name]) for name, weight in loaded.state_dict().items())


def assert_same_vae(loaded, source):
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    source = copy.deepcopy(source).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, found = (vae.encode(picture).latent_dist.mean for vae in (source, loaded))
        assert torch.equal(found, expected)
        assert torch.equal(loaded.decode(found).sample, source.decode(expected).sample)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_unet_computes_what_its_source_does(small, family):
    source = small(family).models.unet
    loaded = load_unet(identify(small(family).path), torch.float32)

    assert_same_weights(loaded, source)
    width = source.config.cross_attention_dim
    assert torch.equal(unet_output(loaded, width), unet_output(source, width))


@pytest.mark.parametrize(("family", "scale"), [("sd15", 0.18215), ("sd2", 0.18215), ("sdxl", 0.13025)])
def test_the_vae_computes_what_its_source_does(small, family, scale):
    loaded = load_vae(identify(small(family).path))

    assert_same_vae(loaded, small(family).models.vae)
    assert loaded.config.scaling_factor == scale


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_encoders_compute_what_their_sources_do(small, family):
    sources = small(family).models.text_encoders
    loaded = load_text_encoders(identify(small(family).path), torch.float32).encoders
    tokens = torch.tensor([[49406, 320, 1125, 539, 320, 2368, 49407] + [0] * 70])

    assert len(loaded) == len(sources)
    for encoder, source in zip(loaded, sources, strict=True):
        used = encoder.config.num_hidden_layers
        assert used == source.config.num_hidden_layers - (family == "sd2")
        with torch.no_grad():
            found = encoder(tokens, output_hidden_states=True)
            expected = source(tokens, output_hidden_states=True)
        for place in range(used + 1):
            assert torch.equal(found.hidden_states[place], expected.hidden_states[place])
        if family == "sdxl":
            assert torch.equal(found[0], expected[0])  # encoder 2: text_embeds


def test_parts_come_frozen_in_eval_mode_and_in_the_precision_asked_for(small):
    base = identify(small("sdxl").path)
    parts = (
        load_unet(base, torch.bfloat16),
        load_vae(base, dtype=torch.bfloat16),
        *load_text_encoders(base, torch.bfloat16).encoders,
    )

    for part in parts:
        assert not part.training
        assert all(weight.dtype == torch.bfloat16 and weight.device.type == "cpu" for weight in part.parameters())
        assert not any(weight.requires_grad for weight in part.parameters())
        assert not any(tensor.is_meta for tensor in part.buffers())


def test_a_checkpoint_loads_as_the_safetensors_file_does(small, tmp_path):
    torch.save({"state_dict": load_file(small("sd15").path)}, tmp_path / "x.ckpt")
    base = identify(tmp_path / "x.ckpt")

    with pytest.raises(BadInput, match="fit no model"):  # a checkpoint can't say that its norms have 8 groups
        load_unet(base, torch.float32)
    base = replace(base, metadata=identify(small("sd15").path).metadata)
    assert_same_weights(load_unet(base, torch.float32), small("sd15").models.unet)
    assert_same_weights(load_text_encoders(base, torch.float32).encoders[0], small("sd15").models.text_encoders[0])


def test_norms_and_heads_of_the_metadata_are_used(small):
    config = load_unet(identify(small("sdxl").path), torch.float32).config

    assert (config.norm_num_groups, tuple(config.attention_head_dim)) == (8, (2, 4, 6))


def test_a_text_encoder_without_the_first_part_of_its_names(small, tmp_path):
    """As the oldest merges of SD1 name it."""
    tensors = load_file(small("sd15").path)
    renamed = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "x.safetensors", dict(identify(small("sd15").path).metadata))

    encoder = load_text_encoders(identify(tmp_path / "x.safetensors"), torch.float32).encoders[0]

    assert_same_weights(encoder, small("sd15").models.text_encoders[0])


@pytest.fixture
def changed(small, tmp_path):
    """A copy of a family's base with some tensors replaced; None takes one away."""

    def make(family, changes):
        tensors = {**load_file(small(family).path), **changes}
        kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        save_file(kept, tmp_path / "x.safetensors", dict(identify(small(family).path).metadata))
        return identify(tmp_path / "x.safetensors")

    return make


def test_a_missing_tensor_is_named(changed):
    name = "input_blocks.4.1.proj_out.weight"

    with pytest.raises(BadInput, match=f"lacks the tensor {name}. Choose"):
        load_unet(changed("sd15", {f"model.diffusion_model.{name}": None}), torch.float32)


def test_a_missing_tensor_that_the_config_is_read_from_is_named(changed):
    with pytest.raises(BadInput, match=r"lacks the tensor out\.2\.weight"):
        load_unet(changed("sd15", {"model.diffusion_model.out.2.weight": None}), torch.float32)


def test_a_misshapen_tensor_is_named_with_both_shapes(changed):
    name = "time_embed.0.bias"

    with pytest.raises(BadInput, match=f"has {name} in the shape 3 instead of 64"):
        load_unet(changed("sd15", {f"model.diffusion_model.{name}": torch.zeros(3)}), torch.float32)


def test_a_base_without_vae_says_so_and_takes_a_vae_file(small, tmp_path):
    tensors = load_file(small("sd15").path)
    vae = {name: tensors.pop(name) for name in list(tensors) if name.startswith("first_stage_model.")}
    metadata = dict(identify(small("sd15").path).metadata)
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    bare = {name.removeprefix("first_stage_model."): tensor for name, tensor in vae.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    save_file(vae, tmp_path / "prefixed.safetensors")
    base = identify(tmp_path / "x.safetensors")

    with pytest.raises(BadInput, match="has no VAE"):
        load_vae(base)
    for name in ("bare", "prefixed"):
        assert_same_vae(load_vae(base, tmp_path / f"{name}.safetensors"), small("sd15").models.vae)


def test_a_vae_in_diffusers_layout(small, tmp_path):
    source = small("sd15").models.vae
    source.save_pretrained(tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    base = identify(small("sd15").path)

    assert_same_vae(load_vae(base, file), source)
    assert_same_vae(load_vae(base, tmp_path / "vae"), source)


def test_a_vae_with_the_attention_names_of_old_diffusers(small, tmp_path):
    source = small("sd15").models.vae
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = {}
    for name, tensor in source.state_dict().items():
        for ours, theirs in old.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor
    save_file(tensors, tmp_path / "x.safetensors")

    assert_same_vae(load_vae(identify(small("sd15").path), tmp_path / "x.safetensors"), source)


def test_a_file_that_is_no_vae_is_named(small, write):
    with pytest.raises(BadInput, match=r'^vae = "x.safetensors": lacks the tensor encoder\.down\.0\.block\.0\.conv1'):
        load_vae(identify(small("sd15").path), write({"fc.weight": (2, 2)}))


@pytest.fixture
def folder(small, tmp_path):
    """A diffusers folder of a family's small models, with the weights cut into several files where asked."""

    def make(family, **saving) -> Path:
        models, path = small(family).models, tmp_path / "folder"
        index: dict[str, object] = {"_class_name": "StableDiffusionPipeline"}
        models.unet.save_pretrained(path / "unet", **saving)
        models.vae.save_pretrained(path / "vae", **saving)
        for number, encoder in enumerate(models.text_encoders, start=1):
            name = "text_encoder" if number == 1 else f"text_encoder_{number}"
            encoder.save_pretrained(path / name, **saving)
            index[name] = ["transformers", type(encoder).__name__]
        scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
        scheduler.save_pretrained(path / "scheduler")
        (path / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("saving", [{}, {"variant": "fp16"}, {"max_shard_size": "1MB"}], ids=str)
def test_a_diffusers_folder(small, folder, family, saving):
    base = identify(folder(family, **saving))
    models = small(family).models

    assert (base.family, base.layout) == (family, "diffusers")
    assert (base.prediction_type, base.zero_terminal_snr) == ("v", True)
    assert_same_weights(load_unet(base, torch.float32), models.unet)
    assert_same_vae(load_vae(base), models.vae)
    for encoder, source in zip(load_text_encoders(base, torch.float32).encoders, models.text_encoders, strict=True):
        assert_same_weights(encoder, source)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_size_files_shapes_give_the_published_configs(family):
    with torch.device("meta"):
        models = build(family, small=False)
        shapes = {
            name: tuple(assembled(parameters, how).shape) for name, parameters, how in original_tensors(models, family)
        }

    def below(prefix):
        return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}

    facts = FAMILY_FACTS[family]
    expected = dict(models.unet.config)
    if isinstance(expected["attention_head_dim"], int):
        expected["attention_head_dim"] = (expected["attention_head_dim"],) * 4
    if isinstance(expected["transformer_layers_per_block"], int):
        expected["transformer_layers_per_block"] = (1,) * 4
    for name, value in configs.unet_config(below("model.diffusion_model."), facts, {}).items():
        assert value == expected[name], name
    for name, value in configs.vae_config(below("first_stage_model."), facts, {}).items():
        assert value == models.vae.config[name], name
    for part, encoder in zip(facts.text_encoders, models.text_encoders, strict=True):
        found = configs.text_config(below(part.prefix), part, part.heads)
        del found["pad_token_id"]  # of no effect on the weights or the forward pass
        found["num_hidden_layers"] += part.unused_layers
        assert found == {name: getattr(encoder.config, name) for name in found}


def test_a_vae_without_its_decoder_encodes_as_the_whole_one_and_must_be_whole(small, tmp_path):
    source = small("sd15").models.vae
    source.save_pretrained(tmp_path / "vae")
    picture = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    base = identify(small("sd15").path)
    whole, half = (load_vae(base, tmp_path / "vae", decoder=decoder) for decoder in (True, False))

    assert half.decoder is None and half.post_quant_conv is None
    assert torch.equal(half.encode(picture).latent_dist.mean, whole.encode(picture).latent_dist.mean)

    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if name != "decoder.conv_out.bias"}, file)
    with pytest.raises(BadInput, match=r"lacks the tensor decoder\.conv_out\.bias"):
        load_vae(base, tmp_path / "vae", decoder=False)

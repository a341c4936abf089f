"""Runs of the whole loop on a small base."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from safetensors import safe_open
from safetensors.torch import load_file

from lora_trainer.config import BadInput, Config, Subset
from lora_trainer.jobs.events import silent
from lora_trainer.jobs.stops import Stop
from lora_trainer.training.batches import make_batch
from lora_trainer.training.device import choose_precision
from lora_trainer.training.failure import TrainingFailed
from lora_trainer.training.families.text import Conditioning
from lora_trainer.training.loop import train
from lora_trainer.training.models import load_models
from lora_trainer.training.plan import make_plan
from lora_trainer.training.run import Run
from lora_trainer.training.steps import Steps
from tests.training.heard import Heard

CPU = torch.device("cpu")
ConfigOf = Callable[..., Config]


class Listener(Heard):
    @property
    def losses(self) -> list[float]:
        return [facts["loss"] for facts in self.of("progress")]


def trained(config: Config, **options: Any) -> tuple[dict[str, torch.Tensor], Listener]:
    listener = Listener()
    outcome = train(config, listener, **options)
    assert outcome.lora is not None
    return load_file(outcome.lora), listener


def stop_after_one_step(config: Config) -> None:
    stop = Stop()
    train(config, lambda kind, /, **facts: stop.ask() if kind == "progress" else None, stop)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_first_loss_is_that_of_diffusers_own_scheduler_and_unet(config_of: ConfigOf) -> None:
    listener = Listener()
    train(config_of(max_steps=1), listener)
    plan = make_plan(config_of(max_steps=1))
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    models.network.set_multiplier(0)
    batch = make_batch(plan, models.pictures, 0, 0, plan.batches(0)[0])
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    context = models.texts(batch.captions).context
    with torch.no_grad():
        prediction = models.unet(noisy, batch.timesteps, context).sample
    assert listener.losses[0] == pytest.approx(torch.nn.functional.mse_loss(prediction, batch.noise).item(), rel=1e-5)


# Recorded on x86-64 with torch 2.13; another machine's rounding differs far less than any change of what is computed.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1.092316, 1.060721, 1.000818, 1.077]),
        (
            {"train": "unet", "min_snr_gamma": 5.0, "noise_offset": 0.1, "multires_iterations": 3},
            [1.101109, 1.072411, 0.801327, 1.086406],
        ),
        (
            {"prediction_type": "v", "zero_terminal_snr": "on", "loss": "huber", "shuffle_tags": True},
            [0.087177, 0.053409, 0.093766, 0.04783],
        ),
        (
            {"optimizer": "Prodigy", "learning_rate": 1.0, "dropout": 0.1, "rank_dropout": 0.1},
            [1.092316, 1.061682, 1.001573, 1.079508],
        ),
    ],
    ids=["plain", "noise", "v-huber", "prodigy-dropout"],
)
def test_losses_of_a_fixed_seed(config_of: ConfigOf, changes: dict[str, Any], expected: list[float]) -> None:
    _, listener = trained(config_of(max_steps=4, **changes))
    assert listener.losses == pytest.approx(expected, rel=1e-3)


def test_same_seed_same_weights_and_another_seed_others(config_of: ConfigOf) -> None:
    first, _ = trained(config_of(output_name="a"))
    second, _ = trained(config_of(output_name="b"))
    third, _ = trained(config_of(output_name="c", seed=8))
    assert same(first, second)
    assert not same(first, third)


def test_accumulated_batches_are_one_larger_batch(config_of: ConfigOf) -> None:
    """Two halves of a batch give the mean of their gradients; their draws belong to other places, so the first pair of
    steps is compared through the loss alone: 4 steps of 1 picture against 4 batches gathered into one step."""
    one_by_one, alone = trained(config_of(output_name="a", batch_size=1, epochs=1, learning_rate=1e-12))
    gathered, together = trained(
        config_of(output_name="b", batch_size=1, epochs=1, learning_rate=1e-12, gradient_accumulation=4)
    )
    assert len(alone.losses) == 4 and len(together.losses) == 1
    assert together.losses[0] == pytest.approx(sum(alone.losses) / 4, rel=1e-6)


def test_cached_and_uncached_captions_train_the_same(config_of: ConfigOf) -> None:
    options = {"train": "unet", "shuffle_tags": False}
    cached, _ = trained(config_of(output_name="a", cache_text="memory", **options))
    uncached, _ = trained(config_of(output_name="b", cache_text="off", **options))
    for key in cached:
        torch.testing.assert_close(cached[key], uncached[key], atol=1e-5, rtol=1e-3)


def test_disk_caches_train_the_same_and_notice_a_changed_picture(config_of: ConfigOf, pictures: Path) -> None:
    options = {"train": "unet", "shuffle_tags": False}
    in_memory, _ = trained(config_of(output_name="a", **options))
    for name in ("b", "c"):
        on_disk, _ = trained(config_of(output_name=name, cache_latents="disk", cache_text="disk", **options))
        assert same(in_memory, on_disk)
    files = sorted(pictures.rglob("*.safetensors"))
    assert len(files) == 4 + 4 + 2  # latents, captions, the prompts of a preview that may be asked for
    (pictures / "0.png").write_bytes((pictures / "1.png").read_bytes())
    changed, _ = trained(config_of(output_name="d", cache_latents="disk", cache_text="disk", **options))
    assert not same(in_memory, changed)


def test_gradient_checkpointing_changes_nothing(config_of: ConfigOf) -> None:
    plain, _ = trained(config_of(output_name="a", dropout=0.2, gradient_checkpointing="off"))
    checkpointed, _ = trained(config_of(output_name="b", dropout=0.2, gradient_checkpointing="on"))
    for key in plain:
        torch.testing.assert_close(plain[key], checkpointed[key], atol=1e-6, rtol=1e-4)


def test_bf16_trains_close_to_float32(config_of: ConfigOf) -> None:
    _, exact = trained(config_of(output_name="a", epochs=1))
    _, rounded = trained(config_of(output_name="b", epochs=1, mixed_precision="bf16"))
    assert rounded.losses == pytest.approx(exact.losses, rel=0.02)


@pytest.mark.parametrize(("train_what", "unet", "text"), [("both", 192, 18), ("unet", 192, 0), ("text_encoder", 0, 18)])
def test_trains_what_was_asked_for(config_of: ConfigOf, train_what: str, unet: int, text: int) -> None:
    tensors, _ = trained(config_of(train=train_what, epochs=1))
    ups = {key: tensor for key, tensor in tensors.items() if key.endswith("lora_up.weight")}
    assert sum(key.startswith("lora_unet_") for key in ups) == unet
    assert sum(key.startswith("lora_te_") for key in ups) == text
    assert all(tensor.abs().max() > 0 for tensor in ups.values())


def test_xl_trains_with_sizes_and_two_text_encoders(config_of: ConfigOf, xl_base: Path) -> None:
    tensors, listener = trained(
        config_of(base_model=str(xl_base), epochs=1, train="both", text_encoder_lr=(1e-3, 2e-3))
    )
    prefixes = {key.partition("_text_model")[0] for key in tensors if key.startswith("lora_te")}
    assert prefixes == {"lora_te1", "lora_te2"}
    assert any(key.startswith("lora_unet_input_blocks_4_1_transformer_blocks_0") for key in tensors)
    assert all(math.isfinite(loss) for loss in listener.losses)


def test_locon_adds_the_convolutions(config_of: ConfigOf) -> None:
    tensors, _ = trained(config_of(kind="LoCon", conv_rank=2, conv_alpha=1.0, epochs=1, train="unet"))
    down = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"]
    up = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"]
    assert down.shape[0] == 2 and down.shape[2:] == (3, 3) and up.shape[1:] == (2, 1, 1)
    assert tensors["lora_unet_down_blocks_0_resnets_0_time_emb_proj.lora_down.weight"].shape[0] == 4


def test_blocks_have_their_own_ranks_alphas_and_rates(config_of: ConfigOf) -> None:
    ranks, alphas = [0] * 25, [1.0] * 25
    ranks[1], ranks[12], alphas[12] = 2, 6, 3.0
    tensors, _ = trained(
        config_of(train="unet", epochs=1, block_wise=True, block_ranks=tuple(ranks), block_alphas=tuple(alphas))
    )
    found = {key.rpartition("_attentions")[0] for key in tensors}
    assert found == {"lora_unet_down_blocks_0", "lora_unet_mid_block"}
    mid = "lora_unet_mid_block_attentions_0_proj_in"
    assert tensors[f"{mid}.lora_down.weight"].shape[0] == 6 and tensors[f"{mid}.alpha"] == 3


def test_regularisation_and_masks_weigh_the_loss(config_of: ConfigOf, pictures: Path, tmp_path: Path) -> None:
    regular = (Subset(folder=str(pictures)), Subset(folder=str(pictures), is_regularisation=True))
    _, full = trained(config_of(output_name="a", subsets=regular, learning_rate=1e-12, epochs=1))
    _, none = trained(config_of(output_name="b", subsets=regular, learning_rate=1e-12, epochs=1, prior_loss_weight=0.0))
    assert len(full.losses) == len(none.losses) == 4
    assert sum(none.losses) == pytest.approx(sum(full.losses) / 2, rel=0.3)
    black = tmp_path / "masks"
    black.mkdir()
    from PIL import Image

    for number in range(4):
        Image.new("L", (64, 64), 0).save(black / f"{number}.png")
    _, masked = trained(config_of(output_name="c", masked_loss="folder", mask_folder=str(black), epochs=1))
    assert masked.losses == [0.0, 0.0]


def test_starts_from_a_lora(config_of: ConfigOf, tmp_path: Path) -> None:
    first, _ = trained(config_of(output_name="a"))
    again, _ = trained(
        config_of(output_name="b", start_lora=str(tmp_path / "out" / "a.safetensors"), learning_rate=1e-12, epochs=1)
    )
    for key in first:
        torch.testing.assert_close(first[key], again[key], atol=1e-9, rtol=0)
    unet_only = tmp_path / "out" / "unet.safetensors"
    train(config_of(output_name="unet", epochs=1, train="unet"))
    _, listener = trained(config_of(output_name="part", epochs=1, start_lora=str(unet_only)))
    assert any("fit 18 layers" in facts["message"] for facts in listener.of("warning"))
    with pytest.raises(BadInput, match="is a LoRA of rank 4, which does not fit a LoRA of rank 3. Set .*rank = 4"):
        train(config_of(output_name="c", start_lora=str(tmp_path / "out" / "a.safetensors"), rank=3))


def test_saves_are_named_and_counted(config_of: ConfigOf, tmp_path: Path) -> None:
    train(config_of(epochs=10, batch_size=4, save_every_epochs=2))
    names = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert names == [*(f"blob-{epoch:06d}.safetensors" for epoch in (2, 4, 6, 8)), "blob.safetensors"]
    train(config_of(output_name="few", epochs=4, save_every_steps=3, keep_last=2))
    names = sorted(path.name for path in (tmp_path / "out").glob("few*.safetensors"))
    assert names == ["few-000003.safetensors", "few-step00000006.safetensors", "few.safetensors"]
    assert not (tmp_path / "out" / "few-run" / "state.bin").exists()


def test_metadata_tells_the_run_and_no_folder_of_the_machine(config_of: ConfigOf, tmp_path: Path) -> None:
    train(config_of(trigger_word="blob", comment="hello", epochs=1))
    with safe_open(tmp_path / "out" / "blob.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "sd_v1" and metadata["ss_network_module"] == "networks.lora"
    assert metadata["ss_sd_model_name"] == "small.safetensors" and metadata["ss_output_name"] == "blob"
    assert metadata["ss_network_dim"] == "4" and metadata["ss_network_alpha"] == "2.0" and metadata["ss_seed"] == "7"
    assert metadata["ss_optimizer"] == "torch.optim.adamw.AdamW" and metadata["ss_total_batch_size"] == "2"
    assert metadata["ss_mixed_precision"] == "no" and metadata["ss_gradient_checkpointing"] == "False"
    assert metadata["ss_shuffle_caption"] == "True"
    assert metadata["ss_steps"] == "2" and metadata["ss_training_comment"] == "hello"
    assert json.loads(metadata["ss_tag_frequency"])["1_blob"]["blob"] == 4
    assert json.loads(metadata["ss_dataset_dirs"]) == {"1_blob": {"n_repeats": 1, "img_count": 4}}
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert str(tmp_path) not in json.dumps(metadata)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_saves(
    config_of: ConfigOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Steps.loss
    calls = iter(range(100))

    def broken(self: Any, batch: Any) -> torch.Tensor:
        return real(self, batch) * (math.nan if next(calls) == 4 else 1)

    monkeypatch.setattr(Steps, "loss", broken)
    with pytest.raises(TrainingFailed, match="loss became nan at step 5.*kept"):
        train(config_of())
    saved = load_file(tmp_path / "out" / "blob-000002.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    assert not (tmp_path / "out" / "blob.safetensors").exists()


def test_stop_saves_and_the_run_goes_on_to_the_same_weights(config_of: ConfigOf) -> None:
    whole, _ = trained(config_of(output_name="whole"))
    stop = Stop()

    def stop_after_three(kind: str, /, **facts: Any) -> None:
        if kind == "progress" and facts["step"] == 3:
            stop.ask()

    assert train(config_of(), stop_after_three, stop).lora is None
    resumed, listener = trained(config_of())
    assert [facts["step"] for facts in listener.of("progress")] == [4, 5, 6]
    assert same(whole, resumed)


def test_cut_off_while_it_finishes_a_run_still_has_its_state(
    config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def note(self: Run, **changes: Any) -> None:
        if changes.get("finished"):
            raise Killed
        real(self, **changes)

    real = Run.note
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Run, "note", note)
        train(config_of())
    _, listener = trained(config_of())
    assert [facts["step"] for facts in listener.of("progress")] == [5, 6]


def test_an_interrupted_run_goes_on_only_with_its_own_settings(config_of: ConfigOf) -> None:
    stop_after_one_step(config_of())
    with pytest.raises(BadInput, match="interrupted run of this name"):
        train(config_of(rank=5))
    _, listener = trained(config_of(rank=5), fresh=True)
    assert listener.of("progress")[0]["step"] == 1


def test_a_numbered_run_goes_on_under_its_number(config_of: ConfigOf, tmp_path: Path) -> None:
    train(config_of(max_steps=1))
    stop_after_one_step(config_of(overwrite="number"))
    assert (tmp_path / "out" / "blob-v2-run" / "state.bin").is_file()
    _, listener = trained(config_of(overwrite="number"))
    assert [facts["step"] for facts in listener.of("progress")] == [2, 3, 4, 5, 6]
    assert (tmp_path / "out" / "blob-v2.safetensors").is_file()
    trained(config_of(overwrite="number"))
    assert (tmp_path / "out" / "blob-v3.safetensors").is_file()


@pytest.mark.parametrize("optimizer", ["AdamW8bit", "Adafactor", "DAdaptAdam", "ScheduleFreeAdamW"])
def test_every_kind_of_optimizer_state_resumes(config_of: ConfigOf, optimizer: str) -> None:
    rate = 1.0 if optimizer == "DAdaptAdam" else 1e-3
    options: dict[str, Any] = {"optimizer": optimizer, "learning_rate": rate, "train": "unet"}
    whole, _ = trained(config_of(output_name="whole", **options))
    stop, steps = Stop(), iter(range(100))

    def stop_in_the_middle(kind: str, /, **facts: Any) -> None:
        if kind == "progress" and next(steps) == 2:
            stop.ask()

    train(config_of(**options), stop_in_the_middle, stop)
    resumed, _ = trained(config_of(**options))
    assert same(whole, resumed)


def test_conditioning_carries_pooled_only_where_the_family_has_it(config_of: ConfigOf) -> None:
    plan = make_plan(config_of())
    models = load_models(plan, choose_precision("no", "auto", CPU), CPU, silent)
    found = models.texts(("a", "b"))
    assert isinstance(found, Conditioning) and found.context.shape[:2] == (2, 77) and found.pooled is None

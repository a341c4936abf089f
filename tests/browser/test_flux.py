"""A Flux on the page: its parts, what is filled in and greyed out, and its LoRA, from pictures to the card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from lora_trainer.inspecting.header import read_header
from tests.browser.server import Server
from tests.browser.tab import Tab, shows
from tests.browser.test_languages import LEFT_IN_ENGLISH
from tests.flux_files import FluxFiles, make_flux
from tests.tagging.florence_files import WORDS, write_florence

BASE, OF_SD = "flux-dev.safetensors", "demo/base.safetensors"
PARTS = ("clip_l", "t5xxl", "ae", "t5_tokenizer")
MEANS_NOTHING = ("preview_cfg", "preview_sampler", "negative_prompt", "min_snr_gamma", "clip_skip", "max_token_length")
MEANS_SOMETHING = ("preview_guidance", "timestep_sampling", "guidance", "t5_length", "double_blocks", "swap_blocks")
QUICK = {
    "repeats": "1",
    "epochs": "2",
    "batch_size": "1",
    "resolution": "64x64",
    "rank": "4",
    "preview_prompts": "{trigger} on a meadow",
    "preview_size": "64x64",
    "preview_steps": "3",
}


@pytest.fixture(scope="module")
def flux(server: Server) -> FluxFiles:
    """A miniature Flux with each file in the folder where its users have it; sentences come from a made Florence-2."""
    models = server.folder / "models"
    write_florence(models / "taggers" / "florence-2")
    made = make_flux(server.folder / "made", dtype="bf16")
    texts = models / "text_encoder"
    placed = FluxFiles(
        models / "Stable-diffusion" / BASE,
        clip_l=texts / "clip_l.safetensors",
        t5xxl=texts / "t5xxl_fp16.safetensors",
        ae=models / "VAE" / "ae.safetensors",
        t5_tokenizer=texts / "tokenizer.json",
    )
    for field in fields(made):
        getattr(made, field.name).replace(getattr(placed, field.name))
    return placed


@pytest.fixture
def on_flux(tab: Tab, flux: FluxFiles) -> Tab:
    """The page with that base chosen."""
    choose(tab, BASE)
    expect(tab.panel("with_parts")).to_be_visible()
    return tab


@pytest.fixture
def without_t5(flux: FluxFiles) -> Iterator[Path]:
    """Where T5 was, and comes back to."""
    away = flux.t5xxl.rename(flux.transformer.parents[2] / "t5xxl.safetensors")
    yield flux.t5xxl
    if away.exists():
        away.rename(flux.t5xxl)


def choose(tab: Tab, name: str) -> None:
    tab.panel("model").locator(f'button[data-name="{name}"]').click()


def part(tab: Tab, setting: str) -> Locator:
    """What stands below the part's field."""
    return tab.page.locator(f'[data-part="{setting}"]')


def is_idle(tab: Tab, setting: str) -> Locator:
    return tab.page.locator(f"#lora_trainer_{setting}.lora-trainer-idle")


def test_its_variant_and_its_parts_are_shown(on_flux: Tab, flux: FluxFiles) -> None:
    shows(on_flux.panel("model_details"), re.compile(r"Variant\s*dev"))
    for setting in PARTS:
        shows(part(on_flux, setting), flux.parts[setting].name)
    shows(on_flux.panel("parts_told"), "are there")
    on_flux.shoot("flux-model", on_flux.fold("model"))
    choose(on_flux, OF_SD)
    expect(on_flux.panel("with_parts")).to_be_hidden()


def test_what_flux_does_not_use_is_greyed_out(on_flux: Tab) -> None:
    for setting in MEANS_NOTHING:
        expect(is_idle(on_flux, setting)).to_have_count(1)
    for setting in MEANS_SOMETHING:
        expect(is_idle(on_flux, setting)).to_have_count(0)
    on_flux.field("preview_guidance")
    on_flux.shoot("flux-advanced", on_flux.page.locator("#lora_trainer_fold_advanced_2"))
    choose(on_flux, OF_SD)
    for setting in MEANS_SOMETHING:
        expect(is_idle(on_flux, setting)).to_have_count(1)
    expect(is_idle(on_flux, "preview_cfg")).to_have_count(0)


def test_its_pictures_are_described_in_sentences_unless_tags_were_wanted(on_flux: Tab) -> None:
    expect(on_flux.field("tagger")).to_have_value("florence-2")
    on_flux.page.get_by_role("button", name="Undo").click()
    expect(on_flux.field("tagger")).to_have_value("wd-v3")
    on_flux.reload()
    shows(on_flux.panel("parts_told"), "are there")
    expect(on_flux.field("tagger")).to_have_value("wd-v3")
    choose(on_flux, OF_SD)
    shows(on_flux.panel("model_details"), "SD1.5")
    choose(on_flux, BASE)
    expect(on_flux.field("tagger")).to_have_value("florence-2")
    choose(on_flux, OF_SD)
    expect(on_flux.field("tagger")).to_have_value("wd-v3")


def test_values_to_begin_with_are_those_of_flux(on_flux: Tab) -> None:
    on_flux.panel("model").get_by_text("Values to begin with").click()
    expect(on_flux.panel("preset_base")).to_have_value("flux")
    on_flux.panel("preset_subject").select_option("style")
    on_flux.panel("preset_fill").click()
    filled = on_flux.page.evaluate("['rank', 'shuffle_tags', 'family'].map(loraTrainer.form.value)")
    assert [str(value) for value in filled] == ["32", "off", "auto"]
    on_flux.shoot("flux-preset", on_flux.fold("model"))


def test_a_part_that_is_missing_is_named_with_its_place(on_flux: Tab, server: Server, without_t5: Path) -> None:
    tab = on_flux
    tab.panel("parts_again").click()
    shows(part(tab, "t5xxl"), f"Put it into {without_t5.parent}, or name its file.")
    shows(tab.panel("parts_told"), "Still to be found: 1 of the 4")
    tab.shoot("flux-missing", tab.panel("with_parts"))
    tab.panel("set").select_option("demo")
    before = len(server.jobs())
    tab.panel("start_training").click()
    shows(tab.panel("problems"), "T5-XXL")
    assert len(server.jobs()) == before
    (server.folder / "t5xxl.safetensors").rename(without_t5)
    tab.panel("parts_again").click()
    shows(part(tab, "t5xxl"), without_t5.name)
    expect(tab.panel("parts_told")).to_contain_text("are there")


@pytest.mark.parametrize(
    ("locale", "told"), [("ja-JP", "T5-XXL がありません。"), ("zh-CN", "缺少此 Flux 模型的 T5-XXL。")]
)
def test_a_part_that_is_missing_is_told_in_the_users_language(
    new_tab: Callable[..., Tab], without_t5: Path, locale: str, told: str
) -> None:
    tab = new_tab(locale)
    choose(tab, BASE)
    shows(part(tab, "t5xxl"), told)
    expect(is_idle(tab, "preview_cfg")).to_have_count(1)
    assert tab.page.evaluate(LEFT_IN_ENGLISH) == []


def test_a_part_is_chosen_among_several_or_by_its_path(on_flux: Tab, server: Server, flux: FluxFiles) -> None:
    tab, second = on_flux, flux.t5xxl.parent / "fp8" / flux.t5xxl.name
    second.parent.mkdir()
    make_flux(server.folder / "other", t5_dtype="fp8").t5xxl.replace(second)
    tab.panel("parts_again").click()
    part(tab, "t5xxl").get_by_role("combobox").select_option(label=f"fp8/{second.name}")
    expect(tab.field("t5xxl")).to_have_value(str(second))
    expect(part(tab, "t5xxl").locator("span")).to_have_attribute("title", str(second))
    tab.fill("t5xxl", str(flux.ae))
    expect(part(tab, "t5xxl").locator(".lora-trainer-problem")).to_be_visible()
    tab.shoot("flux-wrong-part", tab.panel("with_parts"))
    tab.fill("t5xxl", "")
    expect(part(tab, "t5xxl").locator(".lora-trainer-problem")).to_have_count(0)
    shutil.rmtree(second.parent)


@pytest.mark.parametrize(
    ("part", "share", "told"),
    [
        (
            "ae",
            1,
            "It is the autoencoder of Flux or SD3. Choose Flux's transformer here; the setting ae takes this file.",
        ),
        ("t5xxl", 1, "It is the text encoder T5-XXL. Choose Flux's transformer here"),
        ("transformer", 0.5, "cut off"),
    ],
)
def test_what_is_no_base_model_is_told(tab: Tab, flux: FluxFiles, part: str, share: float, told: str) -> None:
    content = getattr(flux, part).read_bytes()
    file = flux.transformer.with_name("wrong.safetensors")
    file.write_bytes(content[: int(share * len(content))])
    try:
        tab.panel("model_refresh").click()
        choose(tab, file.name)
        shows(tab.panel("model_details").locator(".lora-trainer-problem"), told)
        expect(tab.panel("with_parts")).to_be_hidden()
        tab.shoot(f"flux-no-base-{part}", tab.panel("model_details"))
    finally:
        file.unlink()


def test_from_pictures_to_a_lora_of_flux(on_flux: Tab, server: Server, mascot: list[Path]) -> None:
    tab, name = on_flux, "flux_zdm"
    tab.panel("set_name").fill(name)
    tab.panel("files").set_input_files(mascot)
    shows(tab.panel("imported"), "7 pictures added")
    tab.fill("trigger_word", "zorble")
    tab.panel("prepare_start").click()
    shows(tab.panel("prepared"), "7 tagged", seconds=90)
    expect(tab.panel("captions").locator("textarea").first).to_have_value(re.compile("|".join(WORDS[3:])))
    for setting, value in QUICK.items():
        tab.fill(setting, value)
    tab.tick("buckets", False)
    tab.panel("start_training").click()
    shows(tab.panel("start_told"), "is in the queue")
    job = next(job for job in server.jobs() if job["name"] == name and job["kind"] == "train")
    server.until_status(job["id"], "finished", seconds=240)
    progress = tab.fold("progress")
    shows(progress, "Before training")
    expect(progress.locator(".lora-trainer-badge").first).to_contain_text("finished", ignore_case=True)
    tab.shoot("flux-progress", progress)
    file = server.folder / "models" / "Lora" / f"{name}.safetensors"
    header = read_header(file)
    assert header.metadata["ss_base_model_version"] == "flux1"
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight" in header.tensors
    tab.show("My LoRAs")
    card = tab.panel("loras").locator(f'[data-lora="{file.name}"]')
    shows(card, "Flux")
    shows(card, "zorble")
    tab.shoot("flux-lora", card)
    draw_a_grid(tab, card)


def draw_a_grid(tab: Tab, card: Locator) -> None:
    """Weights of the LoRA side by side, by the trainer itself."""
    card.get_by_text("Weight grid").click()
    dialog = tab.panel("grid")
    dialog.locator("input").fill("0.5, 1")
    tab.panel("grid_draw").click()
    expect(dialog.locator("a.lora-trainer-grid-picture")).to_be_visible(timeout=90_000)
    tab.shoot("flux-grid", dialog)

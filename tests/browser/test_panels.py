"""The panels beside the guide's straight way: cuts, the doctor, comparing, another language, a set put away."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from lora_trainer.packages import ROOT
from tests.browser.server import Server
from tests.browser.tab import Tab, shows

QUICK = {
    "resolution": "64x64",
    "preview_size": "64x64",
    "preview_steps": "4",
    "repeats": "1",
    "epochs": "1",
    "preview_prompts": "zorble, meadow",
}


@pytest.fixture
def quick(tab: Tab) -> Tab:
    """The demo's set and base, and a training of seconds."""
    tab.panel("set").select_option("demo")
    expect(tab.field("base_model")).to_have_value("demo/base.safetensors")
    tab.tick("buckets", False)
    for setting, value in QUICK.items():
        tab.fill(setting, value)
    shows(tab.panel("sum"), "= ")
    return tab


def test_the_cut_is_shown_before_it_is_made(quick: Tab) -> None:
    quick.choose("crop", "centre")
    quick.fill("crop_size", "64x128")
    cuts = quick.panel("cuts")
    expect(cuts.locator("figure")).to_have_count(7)
    shows(cuts.locator("figure").first, "64 × 128")
    cuts.scroll_into_view_if_needed()
    box, frame = cuts.locator(".lora-trainer-cut-box").first.bounding_box(), cuts.locator("img").first.bounding_box()
    assert box and frame
    assert box["width"] == pytest.approx(frame["width"] / 2, abs=4)
    assert box["x"] - frame["x"] == pytest.approx(frame["width"] / 4, abs=4)
    quick.shoot("3-prepare-cuts", quick.fold("prepare"))


def test_the_doctor_finds_the_same_picture_twice_and_leaves_one_out(
    tab: Tab, server: Server, mascot: list[Path], tmp_path: Path
) -> None:
    again = tmp_path / "again.png"
    with Image.open(mascot[0]) as picture:
        picture.save(again, optimize=True)  # the same pixels in other bytes
    tab.panel("set_name").fill("doubled")
    tab.panel("files").set_input_files([*mascot[:3], again])
    shows(tab.panel("set_facts"), "4 pictures")
    tab.fold("doctor")
    tab.panel("doctor_start").click()
    found = tab.panel("findings")
    shows(found, "same picture", seconds=90)
    tab.shoot("4-doctor", tab.fold("doctor"))
    group = found.locator("details", has_text="The same picture")
    group.get_by_text("Leave out", exact=False).last.click()
    shows(tab.panel("set_facts"), "3 pictures", seconds=60)


def test_two_ranks_are_compared_in_one_grid_of_pictures(quick: Tab, server: Server) -> None:
    quick.fill("output_name", "compared")
    quick.show("Compare")
    panel = quick.panel("compare")
    panel.locator("select").first.select_option("rank")
    for chip in panel.locator(".lora-trainer-chip.lora-trainer-chosen").all_inner_texts():
        if chip not in ("16", "32"):
            panel.locator(".lora-trainer-chip", has_text=re.compile(f"^{chip}$")).click()
    quick.panel("compare_start").click()
    made = panel.locator("details[data-comparison]").first
    shows(made, "of 2 are done")
    names = {job["name"]: job["id"] for job in server.jobs() if job["name"].startswith("compared-")}
    assert set(names) == {"compared-16", "compared-32"}
    for id in names.values():
        server.until_status(id, "finished", seconds=240)
    expect(made.locator("img")).to_have_count(2)
    for picture in made.locator("img").all():
        expect(picture).to_have_js_property("naturalWidth", 64)
    with quick.page.expect_download() as sheet:
        made.get_by_text("Download the sheet").click()
    with Image.open(sheet.value.path()) as opened:
        assert opened.height > 2 * 64
    quick.shoot("compare", quick.fold("compare"))


def test_a_lora_is_drawn_at_several_weights_and_trained_the_same_again(quick: Tab, server: Server) -> None:
    quick.fill("output_name", "first")
    quick.fill("rank", "4")
    quick.panel("add_to_queue").click()
    shows(quick.panel("start_told"), "is in the queue")
    job = server.jobs()[0]["id"]
    server.until_status(job, "finished")
    draw_a_grid(quick, server)
    quick.show("Train")
    quick.fill("rank", "8")
    quick.fill("repeats", "7")
    quick.show("Queue & history")
    row = quick.panel("history").locator(f'[data-job="{job}"]')
    row.locator("button").first.click()
    row.get_by_text("Same again").click()
    expect(quick.field("rank")).to_have_value("4")
    expect(quick.field("repeats")).to_have_value("1")
    expect(quick.panel("set")).to_have_value("demo")
    shows(quick.panel("sum"), "7 pictures × 1 repeats × 1 epochs")


def draw_a_grid(tab: Tab, server: Server) -> None:
    """Without the LoRA, and at two weights: a row for each, in one sheet in the end."""
    tab.show("My LoRAs")
    tab.panel("loras").locator('[data-lora="first.safetensors"]').get_by_text("Weight grid").click()
    dialog = tab.panel("grid")
    dialog.locator("input").fill("0.5, high")
    tab.panel("grid_draw").click()
    expect(dialog.locator(".lora-trainer-fault")).to_be_visible()
    dialog.locator("input").fill("0.5, 1")
    tab.panel("grid_draw").click()
    expect(dialog.locator('img[src*="grid.png"]')).to_have_count(1, timeout=120_000)
    grid = server.until_status(server.jobs()[0]["id"], "finished")
    assert grid["kind"] == "grid"
    cells = [name for name in server.ask(f"jobs/{grid['id']}/samples")["samples"] if name.startswith("cell-")]
    assert len(cells) == 3
    tab.shoot("11-loras-grid", dialog)
    dialog.get_by_text("Close", exact=True).click()
    expect(dialog).to_have_count(0)


def test_a_pages_language_is_chosen_on_it(tab: Tab) -> None:
    words = json.loads((ROOT / "localizations" / "ja_JP.json").read_text(encoding="utf-8"))
    tab.panel("language").select_option("ja_JP")
    shows(tab.panel("start_training"), words["Start training"])
    shows(tab.page.locator("#lora_trainer_fold_pictures .label-wrap").first, words["1 · Pictures"])
    shows(tab.page.locator("#lora_trainer_trigger_word"), words["Trigger word"])
    tab.shoot("japanese")
    tab.panel("language").select_option("")
    shows(tab.panel("start_training"), "Start training")


def test_a_set_that_is_deleted_is_put_aside(tab: Tab, server: Server) -> None:
    shutil.copytree(server.folder / "datasets" / "demo", server.folder / "datasets" / "unwanted")
    tab.reload()
    tab.panel("set").select_option("unwanted")
    tab.panel("delete_set").click()
    tab.confirm()
    expect(tab.panel("set").locator("option", has_text="unwanted")).to_have_count(0)
    assert list((server.folder / "datasets" / ".deleted" / "unwanted").rglob("*.png"))


def test_a_shot_of_every_setting(tab: Tab) -> None:
    for title in tab.page.locator("[id^=lora_trainer_fold_advanced] .label-wrap").all():
        title.click()
    tab.shoot("advanced")

"""The guide from its first step to its last, clicked as a new user would, in the order in which the guide has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import SEEN
from tests.browser.server import Server
from tests.browser.tab import Tab, shows

REMOVED = ("smile", "horns", "standing")
NAME, KEPT = "zdm", "zdm_of_epoch_2"
TRIGGER = "zorble"
SIDE = "64x64"  # the size of the demo's pictures, which its small base was trained at


def test_from_seven_pictures_to_a_picture_with_the_lora(
    new_tab: Callable[[], Tab], server: Server, mascot: list[Path]
) -> None:
    tab = new_tab()
    upload(tab, mascot)
    choose_the_base(tab)
    tag(tab)
    edit_captions(tab)
    say_how_long(tab)
    say_what_to_preview(tab)
    start(tab)
    job = watch(tab, server)
    come_back(tab, new_tab, server)
    stop_and_resume(tab, server, job)
    look_at_the_history(tab, server, job)
    use_it(tab, server)


def upload(tab: Tab, mascot: list[Path]) -> None:
    """Step 1: seven pictures, without captions."""
    tab.panel("set_name").fill(NAME)
    tab.panel("files").set_input_files(mascot)
    shows(tab.panel("imported"), "7 pictures added")
    shows(tab.panel("set_facts"), "7 pictures")
    expect(tab.panel("pictures").locator("img").first).to_be_visible()
    tab.shoot("1-pictures", tab.fold("pictures"))


def choose_the_base(tab: Tab) -> None:
    """Step 3: the demo's base, which the page has chosen as it is the only one."""
    panel = tab.panel("model")
    expect(tab.field("base_model")).to_have_value("demo/base.safetensors")
    panel.locator('[data-family="sdxl"]').click()
    expect(panel.locator("[role=option]")).to_have_count(0)
    panel.locator('[data-family="sd15"]').click()
    expect(panel.locator("[role=option]")).to_have_count(1)
    shows(tab.panel("model_details"), "SD1.5")
    tab.shoot("2-model", tab.fold("model"))


def tag(tab: Tab) -> None:
    """Step 4: the tagger describes the pictures; the trigger word goes first."""
    tab.fill("trigger_word", TRIGGER)
    tab.panel("prepare_start").click()
    shows(tab.panel("prepared"), "7 pictures are ready", seconds=90)
    tab.shoot("3-prepare", tab.fold("prepare"))


def edit_captions(tab: Tab) -> None:
    """Step 5: three tags are removed everywhere, the last one is brought back; a tag is added to one picture."""
    panel, tags = tab.fold("captions"), tab.panel("all_tags")
    for tag in SEEN:
        expect(tags.locator(f'[data-tag="{tag.replace("_", " ")}"]')).to_contain_text("7")
    for tag in REMOVED:
        tags.locator(f'[data-tag="{tag}"]').click()
        tab.panel("remove_tags").click()
        tab.confirm()
        expect(tags.locator(f'[data-tag="{tag}"]')).to_have_count(0)
    tab.panel("undo").click()
    expect(tags.locator(f'[data-tag="{REMOVED[-1]}"]')).to_contain_text("7")
    adding = tab.panel("add_tag")
    adding.fill("waving")
    adding.press("Enter")
    expect(tab.panel("picture_tags")).to_contain_text("waving")
    expect(tags.locator('[data-tag="waving"]')).to_contain_text("1")
    tab.shoot("5-captions", panel)


def say_how_long(tab: Tab) -> None:
    """Step 6: 7 pictures x 10 repeats x 10 epochs / 1 = 700 steps."""
    for setting, value in {"repeats": "10", "epochs": "10", "batch_size": "1", "resolution": SIDE}.items():
        tab.fill(setting, value)
    tab.tick("buckets", False)
    shows(tab.panel("sum"), re.compile(r"^7 pictures × 10 repeats × 10 epochs / 1 = 700 steps$"))
    tab.shoot("6-steps", tab.fold("steps"))


def say_what_to_preview(tab: Tab) -> None:
    """Step 7: two prompts; small and quick, as the demo's base is."""
    tab.fill("preview_prompts", "{trigger}, meadow\n{trigger}, night, arms up")
    for setting, value in {"preview_size": SIDE, "preview_steps": "5", "preview_cfg": "1.5"}.items():
        tab.fill(setting, value)
    tab.shoot("7-previews", tab.fold("previews"))


def start(tab: Tab) -> None:
    """Step 8: the name, which is the set's where none is typed; then Start."""
    shows(tab.panel("name_told"), f"{NAME}.safetensors")
    tab.panel("start_training").click()
    shows(tab.panel("progress"), f"Job 2: {NAME}")
    tab.shoot("8-start", tab.fold("start"))


def watch(tab: Tab, server: Server) -> int:
    """The bar moves, and the plots are drawn."""
    progress = tab.fold("progress")
    steps = progress.locator(".lora-trainer-live-facts")
    shows(steps, "/ 700", seconds=60)
    first = step_of(steps.inner_text())
    expect(progress.locator(".lora-trainer-plots")).to_be_visible()
    expect(steps).not_to_contain_text(f"{first} / 700")
    shows(progress, "Before training")
    tab.shoot("9-progress", progress)
    return int(server.jobs()[0]["id"])


def come_back(tab: Tab, new_tab: Callable[[], Tab], server: Server) -> None:
    """A reload, a second browser and a new start of the host: it is all there again."""
    tab.reload()
    for seen in (tab, new_tab()):
        shows(seen.panel("progress"), NAME)
        shows(seen.panel("progress"), "/ 700")
    expect(tab.field("preview_prompts")).to_have_value(re.compile("meadow"))
    shows(tab.panel("sum"), "= 700 steps")
    server.kill()
    server.start()
    tab.reload()
    shows(tab.panel("progress"), "/ 700")


def stop_and_resume(tab: Tab, server: Server, job: int) -> None:
    """Stopped with what it has learned, on from there, and stopped again after three of the ten epochs."""
    progress = tab.fold("progress")
    tab.panel("progress_stopAndSave").click()
    stopped = server.until_status(job, "stopped")
    assert 0 < stopped["step"] < 700
    expect(progress.locator(".lora-trainer-badge")).to_contain_text("stopped", ignore_case=True)
    tab.panel("progress_resume").click()
    expect(progress.locator(".lora-trainer-badge")).to_contain_text("running", ignore_case=True)
    shows(progress, "Epoch 3, step 210", seconds=600)
    shows(progress.locator(".lora-trainer-plots"), re.compile(r"step 2[1-9]\d"))
    tab.shoot("9-progress-later", progress)
    tab.panel("progress_stopAndSave").click()
    assert server.until_status(job, "stopped")["step"] > stopped["step"]


def look_at_the_history(tab: Tab, server: Server, job: int) -> None:
    """Step 9: each epoch's previews beside the untrained base's; another epoch than the last is kept."""
    tab.show("Queue & history")
    tab.shoot("queue", tab.fold("queue"))
    row = tab.panel("history").locator(f'[data-job="{job}"]')
    row.locator("button").first.click()
    table = row.locator("table")
    expect(table.locator("img").nth(2 * 4 - 1)).to_be_attached()  # two prompts: before training, after three epochs
    for picture in table.locator("img").all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("naturalWidth", 64)
    tab.shoot("10-history", tab.fold("history"))
    with tab.page.expect_download() as sheet:
        row.get_by_text("Contact sheet").click()
    with Image.open(sheet.value.path()) as opened:
        assert opened.width > 64 and opened.height > 64
    titles = table.locator("thead th").all_inner_texts()
    column = next(number for number, title in enumerate(titles) if title.startswith("Epoch 2"))
    table.locator("tfoot td").nth(column).get_by_text("Keep").click()
    tab.panel("keep_name").fill(KEPT)
    tab.panel("keep").click()
    shows(tab.page.locator(".lora-trainer-toast"), f"{KEPT} is in My LoRAs")
    assert {f"{KEPT}.safetensors", f"{KEPT}.json", f"{KEPT}.png"} <= {path.name for path in lora_folder(server)}


def use_it(tab: Tab, server: Server) -> None:
    """Step 10: its card, and the prompt that calls it up."""
    tab.show("My LoRAs")
    card = tab.panel("loras").locator(f'[data-lora^="{KEPT}"]')
    shows(card, TRIGGER)
    expect(card.locator("img")).to_have_js_property("naturalWidth", 64)
    tab.shoot("11-loras", tab.fold("loras"))
    card.get_by_text("Run", exact=True).click()
    shows(tab.page.locator(".lora-trainer-toast"), "Copied")
    assert tab.page.evaluate("navigator.clipboard.readText()") == f"<lora:{KEPT}:0.8> {TRIGGER}"


def lora_folder(server: Server) -> list[Path]:
    return list((server.folder / "models" / "Lora").iterdir())


def step_of(facts: str) -> int:
    found = re.search(r"(\d+) / 700", facts)
    assert found, facts
    return int(found[1])

"""The guide from its first step to a picture made with the LoRA, in one WebUI."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.browser import test_guide as guide
from tests.browser.tab import shows
from tests.jobs.patience import until
from tests.webui.conftest import checkpoint, draw
from tests.webui.host_tab import HostTab
from tests.webui.pictures import difference
from tests.webui.webui import WebUI

NAME, KEPT, TRIGGER = guide.NAME, "zdm_kept", guide.TRIGGER
TAG = f"<lora:{KEPT}:0.8>"
STEPS = 7 * 2 * 3
FILES = [f"{KEPT}{ending}" for ending in (".json", ".png", ".safetensors")]


def test_from_seven_pictures_to_a_picture_in_txt2img(
    tab: HostTab, webui: WebUI, mascot: list[Path], facts: dict[str, Any]
) -> None:
    guide.upload(tab, mascot)
    choose_the_base(tab, webui)
    guide.tag(tab)
    guide.edit_captions(tab)
    say_how_long(tab)
    guide.say_what_to_preview(tab)
    job = start(tab, webui)
    watch(tab, webui, job)
    keep(tab, webui, job)
    run(tab, webui)
    generate(tab, webui)
    facts["difference"] = compare(webui)
    overwrite(webui, job)


def choose_the_base(tab: HostTab, webui: WebUI) -> None:
    """Step 3: the checkpoint that the WebUI draws with is chosen already."""
    name = Path(checkpoint(webui)).name
    expect(tab.field("base_model")).to_have_value(re.compile(f"^{re.escape(name)}"))
    shows(tab.panel("model_details"), "SD1.5")
    tab.shoot("2-model", tab.fold("model"))


def say_how_long(tab: HostTab) -> None:
    values = {"repeats": "2", "epochs": "3", "batch_size": "1", "resolution": guide.SIDE, "rank": "4", "alpha": "4"}
    for setting, value in values.items():
        tab.fill(setting, value)
    tab.fill("learning_rate", "0.002")  # so that even one epoch more is seen in a picture
    tab.tick("buckets", False)
    shows(tab.panel("sum"), f"= {STEPS} steps")
    tab.shoot("6-steps", tab.fold("steps"))


def start(tab: HostTab, webui: WebUI) -> int:
    """Step 8; the job after that which tagged."""
    shows(tab.panel("name_told"), f"{NAME}.safetensors")
    tab.panel("start_training").click()
    shows(tab.panel("progress"), f": {NAME}")
    tab.shoot("8-start", tab.fold("start"))
    return int(webui.jobs()[0]["id"])


def watch(tab: HostTab, webui: WebUI, job: int) -> None:
    progress = tab.fold("progress")
    shows(progress, f"/ {STEPS}", seconds=120)
    assert webui.until_status(job, "finished", seconds=1200)["step"] == STEPS
    expect(progress.locator(".lora-trainer-badge")).to_contain_text("finished", ignore_case=True)
    tab.shoot("9-progress", progress)


def keep(tab: HostTab, webui: WebUI, job: int) -> None:
    """Step 9: the second epoch, under a name of its own; it lies in models/Lora with its card."""
    tab.show("Queue & history")
    row = tab.panel("history").locator(f'[data-job="{job}"]')
    row.locator("button").first.click()
    table = row.locator("table")
    expect(table.locator("img").nth(2 * 4 - 1)).to_be_attached()  # two prompts: before training, after three epochs
    tab.shoot("10-history", tab.fold("history"))
    titles = table.locator("thead th").all_inner_texts()
    column = next(number for number, title in enumerate(titles) if title.startswith("Epoch 2"))
    table.locator("tfoot td").nth(column).get_by_text("Keep").click()
    tab.panel("keep_name").fill(KEPT)
    tab.shoot("10-keep")
    tab.panel("keep").click()
    shows(tab.page.locator(".lora-trainer-toast").first, KEPT)
    found = sorted(path.name for path in webui.lora_folder.iterdir() if path.name.startswith(KEPT))
    assert found == FILES
    assert KEPT in [each["name"] for each in webui.sdapi("loras")]  # the WebUI knows it by itself


def run(tab: HostTab, webui: WebUI) -> None:
    """Step 10: into txt2img, once, however often; what stood in the prompt stays, and the base model is chosen."""
    tab.top("txt2img")
    name = Path(checkpoint(webui)).name
    other = next((each["title"] for each in webui.sdapi("sd-models") if Path(each["filename"]).name != name), None)
    if other:
        webui.sdapi("options", "POST", {"sd_model_checkpoint": other})
    tab.prompt.fill("meadow")
    for _ in range(2):
        card(tab).get_by_text("Run", exact=True).click()
        expect(tab.prompt).to_be_visible()
        expect(tab.prompt).to_have_value(re.compile(re.escape(TAG)))
    words = tab.prompt.input_value()
    assert words.count(f"<lora:{KEPT}") == 1 and words.count(TRIGGER) == 1 and "meadow" in words, words
    until(lambda: webui.sdapi("options")["sd_model_checkpoint"].startswith(name), every=0.2)
    tab.shoot("12-run")


def card(tab: HostTab) -> Locator:
    tab.top("Train LoRA")
    tab.show("My LoRAs")
    found = tab.panel("loras").locator(f'[data-lora^="{KEPT}"]')
    shows(found, TRIGGER)
    return found


def generate(tab: HostTab, webui: WebUI) -> None:
    """The WebUI draws with what stands in the prompt, as it heard of it."""
    tab.top("txt2img")
    for field, value in {"width": 64, "height": 64, "steps": 4}.items():
        tab.set_number(field, value)
    tab.generate(seed=7)
    shows(tab.page.locator("#html_info_txt2img").first, TAG)
    tab.shoot("13-generated")


def compare(webui: WebUI) -> dict[str, float]:
    """At weight 0 it is the picture without the LoRA; the more weight, the more another one."""
    alone = draw(webui, TRIGGER)
    found = {weight: draw(webui, f"{TRIGGER}<lora:{KEPT}:{weight}>") for weight in ("0", "0.5", "1")}
    far = {weight: difference(alone, picture) for weight, picture in found.items()}
    assert far["0"] <= 0.01 < far["0.5"], far
    assert far["1"] > 0.01 and difference(found["0.5"], found["1"]) > 0.01, far
    return {weight: round(levels, 3) for weight, levels in far.items()}


def overwrite(webui: WebUI, job: int) -> None:
    """Another epoch kept under the same name is what is drawn with from then on."""
    prompt = f"{TRIGGER}<lora:{KEPT}:1>"
    before = draw(webui, prompt)
    file = next(name for name in webui.ask(f"jobs/{job}/loras")["loras"] if "000001" in name)
    webui.ask(f"jobs/{job}/keep", "POST", {"file": file, "name": KEPT, "replace": True})
    webui.ask(f"jobs/{job}/keep", "POST", {"file": file, "name": f"{KEPT}_again"})
    after = draw(webui, prompt)
    assert difference(before, after) > 0.01
    assert difference(after, draw(webui, f"{TRIGGER}<lora:{KEPT}_again:1>")) <= 0.01

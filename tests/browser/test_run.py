"""Run and Keep: a WebUI's fields around our page, and what comes into them and into the LoRA folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.server import Server
from tests.browser.tab import Tab, shows
from tests.jobs.made import lora
from tests.jobs.patience import until

# What Run needs of a WebUI's page, as A1111's and Forge's ui.js and extraNetworks.js have it.
WEBUI = """
window.told = {inputs: 0, shown: 0, chosen: [], refreshed: 0};
for (const name of ["prompt", "neg_prompt"]) {
    const place = document.createElement("div");
    place.id = `txt2img_${name}`;
    place.innerHTML = "<label><textarea></textarea></label>";
    document.body.prepend(place);
    place.addEventListener("input", () => told.inputs++);
}
for (const id of ["change_checkpoint", "txt2img_lora_extra_refresh_internal"]) {
    const button = document.createElement("button");
    Object.assign(button, {id, hidden: true});
    button.addEventListener("click", () => id === "change_checkpoint" || told.refreshed++);
    document.body.append(button);
}
window.updateInput = (target) => target.dispatchEvent(new Event("input", {bubbles: true}));
window.switch_to_txt2img = () => told.shown++;
window.selectCheckpoint = (name) => told.chosen.push(name);
null
"""
TAG = "<lora:zdm:0.7>"
PROMPTS = {  # what stands in the prompt, and what does once the LoRA zdm at 0.7 with its words "zdm, smile" is in it
    "": f"{TAG} zdm, smile",
    "a girl": f"a girl, {TAG} zdm, smile",
    "a girl, \n": f"a girl, {TAG} zdm, smile",
    "a girl, Zdm": f"a girl, Zdm, {TAG} smile",
    "(zdm:1.2), smile,": f"(zdm:1.2), smile, {TAG}",
    "zdmx, smiles": f"zdmx, smiles, {TAG} zdm, smile",
    f"a girl, {TAG} zdm, smile": f"a girl, {TAG} zdm, smile",
    "<lora:zdm:1> zdm, smile": f"{TAG} zdm, smile",
    "<lora:zdm:0.5:0.2:dyn=4> zdm, smile": "<lora:zdm:0.7:dyn=4> zdm, smile",
    "<lora:zdm> a girl": f"{TAG} a girl, zdm, smile",
    "<lora:its own name:1> zdm, smile": f"{TAG} zdm, smile",
    "<lora:zdm:1><lyco:zdm:1> zdm, smile": f"{TAG} zdm, smile",
    "<lora:zdm-v2:1>": f"<lora:zdm-v2:1>, {TAG} zdm, smile",
    "<hypernet:zdm:1>": f"<hypernet:zdm:1>, {TAG} zdm, smile",
}


@pytest.fixture(scope="module")
def loras(server: Server) -> Path:
    """A LoRA zdm that calls itself otherwise, with a card."""
    folder = server.folder / "models" / "Lora"
    (folder / "zdm.safetensors").write_bytes(lora(ss_output_name="its own name"))
    card = {"activation text": "zdm, smile", "preferred weight": 0.7, "negative text": "blurry, dark"}
    (folder / "zdm.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


@pytest.fixture
def webui(tab: Tab, loras: Path) -> Tab:
    tab.page.evaluate(WEBUI)
    tab.show("My LoRAs")
    tab.panel("loras").get_by_text("Refresh").click()
    return tab


def card_of(tab: Tab, name: str) -> Locator:
    return tab.panel("loras").locator(f'[data-lora="{name}.safetensors"]')


def run(tab: Tab, name: str = "zdm") -> None:
    times = tab.page.evaluate("told.shown")
    card_of(tab, name).get_by_text("Run", exact=True).click()
    until(lambda: tab.page.evaluate("told.shown") == times + 1)


def field(tab: Tab, name: str) -> Locator:
    return tab.page.locator(f"#txt2img_{name} textarea")


def test_run_puts_it_into_the_prompt_once(webui: Tab) -> None:
    field(webui, "prompt").fill("a girl")
    field(webui, "neg_prompt").fill("dark")
    before = webui.page.evaluate("told.inputs")
    for _ in range(3):
        run(webui)
        assert field(webui, "prompt").input_value() == f"a girl, {TAG} zdm, smile"
        assert field(webui, "neg_prompt").input_value() == "dark, blurry"
    assert webui.page.evaluate("told.inputs") == before + 2, "gradio hears of what has changed, and of nothing else"


def test_whatever_is_in_the_prompt_stays(webui: Tab) -> None:
    for before, after in PROMPTS.items():
        field(webui, "prompt").fill(before)
        run(webui)
        assert field(webui, "prompt").input_value() == after, before


def test_its_base_model_is_chosen(webui: Tab) -> None:
    run(webui)
    assert webui.page.evaluate("told.chosen") == ["demo/base.safetensors"]
    shows(webui.page.locator(".lora-trainer-toast"), "base.safetensors")


def test_a_card_that_has_changed_meanwhile_is_what_counts(webui: Tab, loras: Path) -> None:
    before = (loras / "zdm.json").read_text(encoding="utf-8")
    try:
        (loras / "zdm.json").write_text('{"activation text": "edited", "preferred weight": 1}', encoding="utf-8")
        run(webui)
        assert field(webui, "prompt").input_value() == "<lora:zdm:1> edited"
    finally:
        (loras / "zdm.json").write_text(before, encoding="utf-8")


def test_the_webuis_cards_are_made_anew_only_for_what_is_new(webui: Tab, loras: Path) -> None:
    again = webui.panel("loras").get_by_text("Refresh")
    expect(card_of(webui, "zdm")).to_be_visible()
    count = webui.page.evaluate("told.refreshed")
    (loras / "second.safetensors").write_bytes(lora(8))
    again.click()
    expect(card_of(webui, "second")).to_be_visible()
    assert webui.page.evaluate("told.refreshed") == count + 1
    webui.panel("loras").locator("input[type=search]").fill("second")
    expect(card_of(webui, "zdm")).to_have_count(0)
    webui.panel("loras").locator("input[type=search]").fill("")
    again.click()
    expect(card_of(webui, "zdm")).to_be_visible()
    assert webui.page.evaluate("told.refreshed") == count + 1
    (loras / "second.safetensors").unlink()


@pytest.fixture(scope="module")
def job(server: Server) -> int:
    """A training of two epochs that was done, with two previews of each."""
    config: dict[str, Any] = {
        "base_model": "demo/base.safetensors",
        "subsets": [{"folder": "demo", "repeats": 1}],
        "output_name": "small",
        "trigger_word": "zorble",
        "resolution": [64, 64],
        "buckets": False,
        "epochs": 2,
        "preview_prompts": ["zorble, meadow", "zorble, night"],
        "preview_size": [64, 64],
        "preview_steps": 4,
    }
    id = server.ask("jobs", "POST", {"config": config})["id"]
    return int(server.until_status(id, "finished")["id"])


def keep(tab: Tab, job: int, epoch: int, **fields: str) -> None:
    """Opens the dialog of that epoch's LoRA, fills it and sends it off."""
    tab.show("Queue & history")
    row = tab.panel("history").locator(f'[data-job="{job}"]')
    if row.locator(".lora-trainer-history-head").get_attribute("aria-expanded") != "true":
        row.locator(".lora-trainer-history-head").click()
    row.locator(".lora-trainer-history-keep").nth(epoch - 1).click()
    for name, text in fields.items():
        tab.panel(f"keep_{name}").fill(text)


def test_an_epoch_is_kept_with_the_weight_and_picture_that_are_chosen(tab: Tab, server: Server, job: int) -> None:
    folder = server.folder / "models" / "Lora"
    (folder / "theirs.safetensors").write_bytes(lora(16))
    keep(tab, job, 1, name="theirs", weight="0.65")
    tab.page.locator(".lora-trainer-keep-picture").nth(1).click()
    tab.shoot("10-history-keep", tab.page.locator("dialog[open]"))
    tab.panel("keep").click()
    expect(tab.panel("keep_name")).to_have_value("theirs-v2")  # theirs is another file, and stays
    shows(tab.page.locator("dialog .lora-trainer-fault"), "is another file")
    tab.panel("keep").click()
    shows(tab.page.locator(".lora-trainer-toast"), "theirs-v2 is in My LoRAs")
    card = json.loads((folder / "theirs-v2.json").read_text(encoding="utf-8"))
    assert (card["activation text"], card["preferred weight"]) == ("zorble", 0.65)
    pictures = server.ask(f"jobs/{job}/keep?file=small-000001.safetensors")["pictures"]
    samples = server.folder / "jobs" / str(job) / "samples"
    assert (folder / "theirs-v2.png").read_bytes() == (samples / pictures[1]).read_bytes()
    assert (folder / "theirs.safetensors").read_bytes() == lora(16)


def test_another_epoch_takes_its_place_when_that_is_wanted(tab: Tab, server: Server, job: int) -> None:
    file = server.folder / "models" / "Lora" / "mine.safetensors"
    keep(tab, job, 1, name="mine", weight="0.65")
    tab.panel("keep").click()
    shows(tab.page.locator(".lora-trainer-toast"), "mine is in My LoRAs")
    first = file.read_bytes()
    keep(tab, job, 2, name="mine")
    tab.panel("keep").click()
    shows(tab.page.locator("dialog:last-of-type"), "small-000001.safetensors of this job")
    tab.page.locator("dialog:last-of-type").get_by_text("Cancel").click()
    assert file.read_bytes() == first
    tab.panel("keep").click()
    tab.confirm()
    expect(tab.panel("keep")).to_have_count(0)
    assert file.read_bytes() != first
    card = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert "Epoch: 2" in card["notes"] and card["preferred weight"] == 0.65
    tab.show("My LoRAs")
    shows(card_of(tab, "mine"), "weight 0.65")

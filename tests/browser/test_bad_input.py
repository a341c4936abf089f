"""What a user can get wrong, in the browser: every problem at once, beside its field, and nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.server import Server
from tests.browser.tab import Tab, shows

BASE = "demo/base.safetensors"
SIX_MISTAKES = {
    "base_model": "gone.safetensors",
    "repeats": "0",
    "epochs": "ten",
    "learning_rate": "much",
    "resolution": "63x64",
    "output_name": "a/b",
}


@pytest.fixture
def ready(tab: Tab, server: Server) -> Tab:
    """A page with the demo's set and base, at which Start would start."""
    tab.panel("set").select_option("demo")
    tab.fill("base_model", BASE)
    tab.fill("resolution", "64x64")
    tab.tick("buckets", False)
    shows(tab.panel("sum"), "7 pictures")
    return tab


def refused(tab: Tab, server: Server) -> None:
    """Start was clicked, and starts nothing."""
    before = len(server.jobs())
    tab.panel("start_training").click()
    expect(tab.panel("problems").locator("li").first).to_be_visible()
    assert len(server.jobs()) == before


def test_no_pictures(tab: Tab, server: Server) -> None:
    tab.fill("base_model", BASE)
    refused(tab, server)
    shows(tab.panel("problems"), "picture")


def test_a_text_file_that_is_called_png(tab: Tab, mascot: list[Path], tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture at all", encoding="utf-8")
    tab.panel("set_name").fill("with_a_text")
    tab.panel("files").set_input_files([*mascot[:2], text])
    shows(tab.panel("imported"), "2 pictures added")
    shows(tab.panel("pictures"), "notes.png")
    shows(tab.panel("set_facts"), "2 pictures")


def test_a_name_that_is_taken(ready: Tab, server: Server) -> None:
    (server.folder / "models" / "Lora").mkdir(parents=True, exist_ok=True)
    (server.folder / "models" / "Lora" / "taken.safetensors").write_bytes(b"of somebody")
    ready.choose("overwrite", "refuse")
    ready.fill("output_name", "taken")
    refused(ready, server)
    shows(ready.told("output_name"), "exists already")
    assert (server.folder / "models" / "Lora" / "taken.safetensors").read_bytes() == b"of somebody"


def test_a_constant_rate_with_a_warm_up(ready: Tab, server: Server) -> None:
    ready.choose("schedule", "constant")
    ready.fill("warmup_percent", "10")
    refused(ready, server)
    shows(ready.told("warmup_percent").or_(ready.told("schedule")).first, "constant")


def test_six_mistakes_are_told_at_once_each_beside_its_field(ready: Tab, server: Server) -> None:
    for setting, text in SIX_MISTAKES.items():
        ready.fill(setting, text)
    refused(ready, server)
    for setting in SIX_MISTAKES:
        expect(ready.told(setting)).to_be_visible()
        expect(ready.panel("problems").locator(f'[data-setting^="{setting}"]')).to_be_visible()
    ready.shoot("bad-input", ready.panel("start"))


def test_a_mended_mistake_is_not_told_any_more(ready: Tab) -> None:
    ready.fill("epochs", "ten")
    expect(ready.told("epochs")).to_be_visible()
    ready.fill("epochs", "3")
    expect(ready.told("epochs")).to_have_count(0)


def test_a_set_of_a_name_that_is_there_already(tab: Tab, mascot: list[Path]) -> None:
    tab.panel("set_name").fill("demo")
    tab.panel("files").set_input_files(mascot[:1])
    shows(tab.panel("pictures"), "is there already")


def test_words_of_users_are_text_and_no_page(new_tab: Callable[[], Tab], mascot: list[Path]) -> None:
    tab = new_tab()
    tab.panel("set_name").fill("markup")
    tab.panel("files").set_input_files(mascot[:1])
    shows(tab.panel("imported"), "1 picture added")
    tab.fold("captions").scroll_into_view_if_needed()
    adding = tab.panel("add_tag")
    adding.fill("<img src=x onerror=document.title='run'>")
    adding.press("Enter")
    expect(tab.panel("picture_tags")).to_contain_text("<img src=x")
    expect(tab.panel("all_tags")).to_contain_text("<img src=x")
    assert tab.page.title() != "run"

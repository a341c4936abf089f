"""The README's pictures, taken of a WebUI: `LORA_TRAINER_PICTURES=pictures python tests webui/test_readme.py`.

With LORA_TRAINER_WEBUI they are those of a real one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from lora_trainer.packages import ROOT
from tests.webui.conftest import training
from tests.webui.host_tab import HostTab
from tests.webui.webui import WebUI

FOLDER = os.environ.get("LORA_TRAINER_PICTURES", "")
LANGUAGES = {"en": ("None", "Train LoRA"), "ja": ("ja_JP", "LoRAトレーニング"), "zh": ("zh_CN", "LoRA 训练")}
PROMPTS = ["zorble, meadow, smile", "zorble, night, arms up"]
WITHOUT_FOLDERS = r"""
for (const told of document.querySelectorAll("#lora_trainer_model_details *"))
    if (!told.children.length) told.textContent = told.textContent.replace(/^\/.*(?=models\/)/, "");
"""
WIDTH, QUALITY = 1000, 88

pytestmark = pytest.mark.skipif(not FOLDER, reason="LORA_TRAINER_PICTURES names no folder for the README's pictures.")


def test_the_readmes_pictures(installed: WebUI, new_tab: Callable[..., HostTab]) -> None:
    installed.start()
    settings = {"rank": 16, "alpha": 16.0, "preview_prompts": PROMPTS, "preview_cfg": 2.0}
    previews = {"preview_every_epochs": 1, "preview_at_start": True, "preview_size": [64, 64]}
    job = training(installed, "zorble", 5, repeats=10, **previews, **settings)
    installed.until_status(job, "finished", seconds=900)
    shoot_installing(new_tab(installed))
    for language, (localization, title) in LANGUAGES.items():
        installed.sdapi("options", "POST", {"localization": localization})
        installed.kill()
        installed.start()
        shoot(new_tab(installed), title, job, language)


def shoot_installing(tab: HostTab) -> None:
    tab.open()
    tab.top("Extensions")
    tab.page.locator("#tabs_extensions > .tab-nav").get_by_text("Install from URL", exact=True).click()
    tab.page.get_by_label("URL for extension's git repository").fill("the address of this repository")
    take(tab.page.locator("gradio-app"), "install", height=520)


def shoot(tab: HostTab, title: str, job: int, language: str) -> None:
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 1500})
    page.goto(tab.address)
    tab.ready()
    tab.top(title)
    page.get_by_role("combobox").filter(has=page.locator("option", has_text="demo")).first.select_option("demo")
    tab.fill("trigger_word", "zorble")
    page.evaluate(WITHOUT_FOLDERS)
    take(page.locator("gradio-app"), f"tab-{language}", height=1500)
    captions = tab.fold("captions")
    captions.scroll_into_view_if_needed()
    captions.locator("img").nth(3).click()
    take(captions, f"captions-{language}")
    take(tab.fold("progress"), f"progress-{language}")
    page.locator("#lora_trainer_tabs > .tab-nav button").nth(1).click()
    row = tab.panel("history").locator(f'[data-job="{job}"]')
    row.locator("button").first.click()
    expect(row.locator("table img").nth(11)).to_be_visible()
    take(tab.fold("history"), f"history-{language}")


def take(what: Locator, name: str, height: int | None = None) -> None:
    """Small enough for a README."""
    shot = what.screenshot(animations="disabled")
    with Image.open(io.BytesIO(shot)) as opened:
        whole = opened.convert("RGB").crop((0, 0, opened.width, min(opened.height, height or opened.height)))
    scale = min(1.0, WIDTH / whole.width)
    small = whole.resize((round(whole.width * scale), round(whole.height * scale)), Image.Resampling.LANCZOS)
    file = ROOT / FOLDER / f"{name}.webp"
    file.parent.mkdir(parents=True, exist_ok=True)
    small.save(file, quality=QUALITY, method=6)

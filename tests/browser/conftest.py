"""A real browser before the real page, in both gradios of the WebUIs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from lora_trainer.config import Config
from lora_trainer.packages import ROOT
from tests.browser.server import NEW, OLD, Server
from tests.browser.tab import Tab
from tests.tagging.onnx_files import logit, selected_tags, tag_model

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --disable-background-networking --disable-component-update"
    " --disable-sync"
)
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # no other machine is ever reached
TIMEOUT_MS = 20_000
CLIPBOARD = ["clipboard-read", "clipboard-write"]
# What the test tagger is sure of in every picture: a creature's looks, and what it wears.
SEEN = {"solo": 0.95, "green_hair": 0.93, "smile": 0.9, "horns": 0.85, "simple_background": 0.8, "standing": 0.7}


@pytest.fixture(scope="module")  # no longer: while playwright lives, no other test's event loop can run
def browser() -> Iterator[Browser]:
    if program() is None:
        sentence = "No Chromium is installed: the tab is not tested in a browser. Install chromium, or Chrome."
        if os.environ.get("LORA_TRAINER_BROWSER") == "required":
            pytest.fail(sentence)
        pytest.skip(sentence)
    with sync_playwright() as playwright:
        expect.set_options(timeout=TIMEOUT_MS)
        browser = launched(playwright)
        yield browser
        browser.close()


def program() -> str | None:
    """The browser that is installed here."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def launched(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=program(), args=[*QUIET.split(), ALONE])


@pytest.fixture(scope="module", params=[OLD, NEW], ids=lambda version: f"gradio {version}")
def server(
    request: pytest.FixtureRequest, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Served, with the test tagger in place of a downloaded one."""
    if request.param == OLD and sys.version_info >= (3, 13):
        pytest.skip("gradio 3.41.2 needs numpy 1, which there is not for this Python; neither do its WebUIs run in it.")
    server = Server(request.param, tmp_path_factory.mktemp("page"))
    make_tagger(server.folder / "models" / "taggers" / Config().tagger)
    server.start()
    yield server
    server.close()


@pytest.fixture
def new_tab(server: Server, browser: Browser) -> Iterator[Callable[..., Tab]]:
    """Another browser of another user, who reads that language, without anything that an earlier one has kept."""
    tabs = []

    def opened(locale: str = "en-GB") -> Tab:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale=locale, permissions=CLIPBOARD)
        context.set_default_timeout(TIMEOUT_MS)
        tab = Tab(context.new_page(), server.address, ROOT / "tests" / "screenshots" / f"gradio-{server.gradio}")
        tabs.append(tab)
        tab.open()
        return tab

    yield opened
    faults = [fault for tab in tabs for fault in tab.faults]
    for tab in tabs:
        tab.page.context.close()
    assert not faults


@pytest.fixture
def tab(new_tab: Callable[[], Tab]) -> Tab:
    return new_tab()


@pytest.fixture(scope="session")
def mascot() -> list[Path]:
    """The demo's seven pictures."""
    return sorted((ROOT / "lora_trainer" / "demo" / "mascot").rglob("*.png"))


def make_tagger(folder: Path) -> None:
    """A made model in the place of a downloaded tagger, which sees the same in every picture."""
    folder.mkdir(parents=True)
    shutil.copyfile(selected_tags(), folder / "selected_tags.csv")
    names = [line.split(",")[1] for line in selected_tags().read_text(encoding="utf-8").splitlines()[1:]]
    biases = np.full(len(names), -9.0)
    for name, probability in SEEN.items():
        biases[names.index(name)] = logit(probability)
    tag_model(folder / "model.onnx", 448, biases)

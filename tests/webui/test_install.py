"""Installed as a user does it: by its URL in the Extensions tab, then "Apply and restart UI"."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.tab import SUB_TABS
from tests.webui.host_tab import TITLE, HostTab
from tests.webui.webui import NAME, WebUI

NOT_DRAWN = """
[...document.querySelectorAll("div.lora-trainer-panel[id]")].filter(each => !each.dataset.drawn).map(each => each.id)
"""


def freeze(webui: WebUI) -> str:
    """The packages of the WebUI's Python."""
    python = webui.program.command[0]
    return subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, encoding="utf-8").stdout


@pytest.fixture(scope="module")
def packages(bare: WebUI) -> str:
    return freeze(bare)


def test_the_url_is_all_that_is_needed(
    bare: WebUI, packages: str, url: str, new_tab: Callable[..., HostTab], facts: dict[str, Any]
) -> None:
    bare.start()
    tab = new_tab(bare)
    install(tab, url)
    restart(tab, bare)
    look(tab)
    facts["start"] = share(bare)
    assert freeze(bare) == packages


def install(tab: HostTab, url: str) -> None:
    tab.page.goto(tab.address)
    tab.top("Extensions")
    tab.page.locator("#tabs_extensions > .tab-nav").get_by_text("Install from URL", exact=True).click()
    tab.page.get_by_label("URL for extension's git repository").fill(url)
    tab.page.get_by_role("button", name="Install", exact=True).click()
    expect(tab.page.get_by_text("Installed into")).to_be_visible(timeout=120_000)
    tab.shoot("install-1-url")


def restart(tab: HostTab, webui: WebUI) -> None:
    tab.page.locator("#tabs_extensions > .tab-nav").get_by_text("Installed", exact=True).click()
    expect(tab.page.locator("#extensions")).to_contain_text(NAME)
    tab.page.get_by_role("button", name="Apply and restart UI").click()
    webui.until_ended()
    webui.start()
    expect(tab.page.locator("#tabs > .tab-nav").first).to_contain_text(TITLE, timeout=60_000)  # it reloads by itself


def look(tab: HostTab) -> None:
    """Every panel is drawn; nothing of the tab lies beyond the WebUI's page."""
    tab.ready()
    tab.top(TITLE)
    for title in SUB_TABS:
        tab.show(title)
        tab.shoot(f"install-2-{title.split()[0].lower()}")
    assert tab.page.evaluate(NOT_DRAWN) == []


def share(webui: WebUI) -> dict[str, float]:
    """What of the start is the extension's, in seconds, as the WebUI's own profile has it."""
    records = webui.request("internal/profile-startup")["records"]
    parts = (f"/{NAME}", "/lora_trainer_tab.py", "app_started_callback/__init__.py")  # by the name of the file alone
    own = {name: took for name, took in records.items() if name.endswith(parts)}
    assert len(own) == len(parts), records
    return {name: round(took, 3) for name, took in own.items()}

"""The stand-alone page itself."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.server import Server
from tests.browser.tab import SUB_TABS, Tab

NOT_DRAWN = """
[...document.querySelectorAll("div.lora-trainer-panel[id]")].filter(each => !each.dataset.drawn).map(each => each.id)
"""


def test_every_panel_is_drawn_and_nothing_is_asked_of_other_machines(tab: Tab) -> None:
    for title in SUB_TABS:
        tab.show(title)
    assert tab.page.evaluate(NOT_DRAWN) == []
    assert not tab.faults


def test_the_page_fits_a_phone(tab: Tab) -> None:
    for title in SUB_TABS:
        tab.show(title)
        tab.shoot(f"wide-{title.split()[0].lower()}")
        tab.shoot_on_a_phone(f"phone-{title.split()[0].lower()}")


@pytest.fixture
def guarded(server: Server, tmp_path: Path) -> Iterator[Server]:
    """Another one that asks for a password."""
    guarded = Server(server.gradio, tmp_path, "--auth", "alice:secret")
    guarded.start()
    yield guarded
    guarded.kill()


def test_a_page_with_users_asks_for_the_password(guarded: Server, browser: Browser, tmp_path: Path) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        guarded.ask("jobs")
    with browser.new_context() as context:
        tab = Tab(context.new_page(), guarded.address, tmp_path)
        tab.page.goto(guarded.address)
        for place, text in enumerate(("alice", "secret")):
            tab.page.locator("input, textarea").nth(place).fill(text)
        tab.page.get_by_role("button", name="Login").click()
        tab.ready()
        expect(tab.panel("set")).to_contain_text("demo")  # the routes know who has logged in


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_ends_it_quietly(guarded: Server) -> None:
    assert guarded.interrupt() == 0
    assert "Traceback" not in (guarded.folder / "page.log").read_text(encoding="utf-8")


def test_a_page_that_anybody_may_use_says_so(server: Server, tmp_path: Path) -> None:
    listening = Server(server.gradio, tmp_path, "--listen")
    listening.start()
    try:
        from_elsewhere = urllib.request.Request(f"{listening.address}lora-trainer/v1/jobs", headers={"Host": "pc.lan"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(from_elsewhere, timeout=60) as answer:
            assert answer.status == 200
    finally:
        listening.kill()
    assert "--auth USER:PASSWORD" in (tmp_path / "page.log").read_text(encoding="utf-8")

"""Who may use our routes: those whom the WebUI lets in, and nobody from other machines until that is allowed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from lora_trainer.packages import ROOT
from tests.browser.tab import shows
from tests.webui.host_tab import HostTab
from tests.webui.webui import WebUI

V1 = "lora-trainer/v1"
READING = ("queue", "jobs", "loras", "models", "datasets", "config/schema", "setup")
OUTSIDE = ("../../../config.json", "..%2f..%2f..%2fconfig.json", "/etc/passwd", "%2fetc%2fpasswd", "....//config.json")
NOT_ANSWERED = (400, 403, 404, 405, 422)


@contextmanager
def started(webui: WebUI, *options: str) -> Iterator[WebUI]:
    webui.start(*options)
    try:
        yield webui
    finally:
        webui.kill()
        webui.credentials = ""


def test_with_api_auth_the_same_password_is_asked_for(installed: WebUI) -> None:
    with started(installed, "--api-auth", "alice:secret") as webui:
        for route in READING:
            assert webui.refused(f"{V1}/{route}") == 401, route
        assert webui.refused(f"{V1}/jobs", "POST", {"config": {}}) == 401
        assert webui.refused("sdapi/v1/options") == 401
        webui.credentials = "alice:wrong"
        assert webui.refused(f"{V1}/queue") == 401
        webui.credentials = "alice:secret"
        assert webui.ask("queue")["jobs"] == []


def test_with_gradio_auth_the_login_counts(installed: WebUI, new_tab: Callable[..., HostTab]) -> None:
    with started(installed, "--gradio-auth", "alice:secret") as webui:
        for route in READING:
            assert webui.refused(f"{V1}/{route}") == 401, route
        tab = new_tab(webui)
        tab.page.goto(webui.address)
        for place, text in enumerate(("alice", "secret")):
            tab.page.locator("input, textarea").nth(place).fill(text)
        tab.page.get_by_role("button", name="Login").click()
        tab.ready()
        tab.top("Train LoRA")
        shows(tab.panel("set"), "demo")  # the routes know who has logged in
        wrong = base64.b64encode(b"alice:wrong").decode()
        assert webui.refused(f"{V1}/queue", Authorization=f"Basic {wrong}") == 401


def test_listening_without_a_password_it_is_closed_until_that_is_allowed(
    installed: WebUI, new_tab: Callable[..., HostTab]
) -> None:
    with started(installed, "--listen") as webui:
        for route in READING:
            assert webui.refused(f"{V1}/{route}") == 403, route
        assert webui.refused(f"{V1}/jobs", "POST", {"config": {}}) == 403
        tab = new_tab(webui)
        tab.open()
        tab.shoot("19-closed")
        tick(tab, "lora_trainer_open_to_all", True)
        assert webui.refused(f"{V1}/queue") == 200
        assert webui.refused(f"{V1}/queue", Host="pc.lan") == 200
        tab.reload()
        shows(tab.panel("set"), "demo")
        tick(tab, "lora_trainer_open_to_all", False)
        assert webui.refused(f"{V1}/queue") == 403


def tick(tab: HostTab, option: str, on: bool) -> None:
    """One of our options in the WebUI's settings, applied."""
    tab.top("Settings")
    tab.page.locator("#settings > .tab-nav").get_by_text("Train LoRA", exact=True).click()
    tab.page.locator(f"#setting_{option} input[type=checkbox]").set_checked(on)
    tab.shoot("20-settings")
    tab.page.locator("#settings_submit").click()
    shows(tab.page.locator("#settings_result").first, option)


def test_no_file_outside_our_folders_is_served(installed: WebUI) -> None:
    with started(installed) as webui:
        for route in ("loras/{}/file", "loras/{}/picture", "jobs/1/samples/{}", "jobs/1/loras/{}", "datasets/{}"):
            for name in (*OUTSIDE, quote(str(ROOT / "README.md"), safe="")):
                status = webui.refused(f"{V1}/{route.format(name)}")
                assert status in NOT_ANSWERED, (route, name, status)
        for folder in (str(ROOT / "lora_trainer"), "/etc", ".."):
            body = {"config": {"base_model": "x", "subsets": [{"folder": folder}], "output_name": "../../x"}}
            assert webui.refused(f"{V1}/jobs", "POST", body) == 422
        assert webui.refused(f"{V1}/queue", Host="pc.lan") == 403  # a page that turned its own name to this address
        assert webui.refused(f"{V1}/jobs", "POST", {}, Origin="http://pc.lan") == 403
